// Feature maps are float or half; sums are float.
#pragma once

#include "host_device.h"

#include <cuda_fp16.h>

namespace pointrend {

__device__ __forceinline__ float read(float const* at) { return *at; }
__device__ __forceinline__ float read(__half const* at) { return __half2float(*at); }
__device__ __forceinline__ void write(float* at, float value) { *at = value; }
__device__ __forceinline__ void write(__half* at, float value) { *at = __float2half_rn(value); }

} // namespace pointrend
