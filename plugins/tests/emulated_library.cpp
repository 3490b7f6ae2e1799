// What the tests call besides the kernels' C interface: switches of the emulator, and planted mistakes.
#include "cuda_emulator.h"
#include "order_key.h"
#include "pointrend_plugins.h"

namespace {

__global__ void half_of_a_block_waits() {
    if (threadIdx.x < 64) {
        __syncthreads();
    }
}

__global__ void half_of_a_warp_votes() {
    if (threadIdx.x % 32 < 16) {
        __ballot_sync(0xFFFFFFFFU, 1);
    }
}

// Each thread reads its neighbour's number, with the barrier between left out or not.
__global__ void neighbours(uint32_t* out, bool barrier) {
    __shared__ uint32_t numbers[128];
    numbers[threadIdx.x] = 0U;
    __syncthreads();
    numbers[threadIdx.x] = threadIdx.x + 1U;
    if (barrier) {
        __syncthreads();
    }
    out[threadIdx.x] = numbers[(threadIdx.x + 64U) % 128U];
}

int launch_result() {
    cudaError_t const error = cudaPeekAtLastError();
    emulator::machine.failed = false;
    return error;
}

} // namespace

extern "C" {

POINTREND_API void emulator_backwards(int backwards) { emulator::machine.backwards = backwards != 0; }

// Mistakes that the emulator has to report: 0 a barrier left out by half a block, 1 a vote by half a warp.
POINTREND_API int emulator_mistake(int which) {
    if (which == 0) {
        PR_LAUNCH(half_of_a_block_waits, dim3(2), dim3(128), nullptr);
    } else {
        PR_LAUNCH(half_of_a_warp_votes, dim3(2), dim3(128), nullptr);
    }
    return launch_result();
}

POINTREND_API int emulator_neighbours(uint32_t* out, int barrier) {
    PR_LAUNCH(neighbours, dim3(1), dim3(128), nullptr, out, barrier != 0);
    return launch_result();
}

POINTREND_API uint32_t host_order_key(float value) { return pointrend::order_key(value); }

int32_t pointrend_tensorrt_version(void) { return 0; }

} // extern "C"
