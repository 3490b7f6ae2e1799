// Functions that g++ compiles for the tests and nvcc for the device, and the one way to launch a kernel.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#define PR_HOST_DEVICE __host__ __device__ __forceinline__
#define PR_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#elif defined(PR_CUDA_EMULATOR) // tests/cuda_emulator.h defines PR_LAUNCH
#define PR_HOST_DEVICE inline
#else
#define PR_HOST_DEVICE inline
#endif
