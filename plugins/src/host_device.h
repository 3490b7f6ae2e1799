// Functions that g++ compiles for the tests and nvcc for the device, and the ways to launch a kernel.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#define PR_HOST_DEVICE __host__ __device__ __forceinline__
#define PR_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#define PR_LAUNCH_SHARED(kernel, grid, block, bytes, stream, ...) kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#define PR_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#elif defined(PR_CUDA_EMULATOR) // tests/cuda_emulator.h defines the launches
#define PR_HOST_DEVICE inline
#else
#define PR_HOST_DEVICE inline
#endif

namespace pointrend {

// A product rounded by itself. nvcc would merge it with a sum that follows, which is rounded once less, and a
// comparison with a threshold could then come out otherwise than in the reference.
PR_HOST_DEVICE float product(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

} // namespace pointrend
