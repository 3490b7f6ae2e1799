// Stands in for CUDA's header where g++ compiles kernels for the emulator: rounds to nearest even, as CUDA does.
#pragma once
#include "../cuda_emulator.h"

struct __half {
    _Float16 value;
};

inline float __half2float(__half half) { return static_cast<float>(half.value); }
inline __half __float2half_rn(float value) { return __half{static_cast<_Float16>(value)}; }
