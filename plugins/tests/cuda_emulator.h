// CUDA threads on a CPU, one fiber each: enough of CUDA for the kernels here, and stricter than a device.
//
// Blocks run one after another. Within a block every thread runs up to its next barrier or warp operation.
// Reported as a failed launch, where a device would hang or give some result: lanes of a warp that meet
// different operations or leave while others wait, and a block barrier that some threads never reach.
// `machine.backwards` turns round the order of blocks, warps and lanes: a result that depends on
// it has a race. Static storage stands for shared memory, so it holds what the block before left there; dynamic
// shared memory is a heap block of exactly the size that the launch asked for.
#pragma once
#define PR_CUDA_EMULATOR 1

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719 };
using cudaStream_t = void*;
using cudaEvent_t = void*;

namespace emulator {

enum class State { ready, at_warp, at_block, done };
constexpr unsigned kWarp = 32;
constexpr size_t kStackBytes = 64 << 10;

struct Fiber {
    ucontext_t first;
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    bool started = false;
    State state = State::done;
    dim3 index;
    uint32_t offered = 0; // what a warp operation gives to the other lanes
};

struct Machine {
    std::vector<Fiber> fibers;
    ucontext_t scheduler;
    jmp_buf scheduler_place;
    size_t current = 0;
    std::function<void()> kernel;
    dim3 block_index, block_size, grid_size;
    std::unique_ptr<unsigned char[]> shared;
    bool failed = false;
    bool backwards = false;
};

inline Machine machine;

#if defined(__SANITIZE_ADDRESS__) // it follows swapcontext, not a jump between stacks
inline void to_fiber(Fiber& fiber) { swapcontext(&machine.scheduler, &fiber.first); }
inline void to_scheduler(Fiber& fiber) { swapcontext(&fiber.first, &machine.scheduler); }
#else // jumps need no system call
inline void to_fiber(Fiber& fiber) {
    if (_setjmp(machine.scheduler_place) != 0) {
        return;
    }
    if (fiber.started) {
        _longjmp(fiber.place, 1);
    }
    fiber.started = true;
    setcontext(&fiber.first);
}
inline void to_scheduler(Fiber& fiber) {
    if (_setjmp(fiber.place) == 0) {
        _longjmp(machine.scheduler_place, 1);
    }
}
#endif

inline void wait(State state) {
    Fiber& fiber = machine.fibers[machine.current];
    fiber.state = state;
    to_scheduler(fiber);
}

inline void fiber_main() {
    for (;;) { // a fiber serves one thread of each block
        machine.kernel();
        wait(State::done);
    }
}

inline void make_fibers(size_t count) {
    machine.fibers = std::vector<Fiber>(count);
    for (Fiber& fiber : machine.fibers) {
        fiber.stack = std::make_unique<char[]>(kStackBytes);
        getcontext(&fiber.first);
        fiber.first.uc_stack.ss_sp = fiber.stack.get();
        fiber.first.uc_stack.ss_size = kStackBytes;
        fiber.first.uc_link = nullptr;
        makecontext(&fiber.first, fiber_main, 0);
    }
}

inline size_t in_order(size_t i, size_t count) { return machine.backwards ? count - 1 - i : i; }

// Runs a warp until all its lanes are done or all are at a block barrier; false where they part.
inline bool run_warp(size_t first, size_t last) {
    for (;;) {
        for (size_t i = 0; i < last - first; ++i) {
            machine.current = first + in_order(i, last - first);
            Fiber& fiber = machine.fibers[machine.current];
            if (fiber.state == State::ready) {
                to_fiber(fiber);
            }
        }
        State const state = machine.fibers[first].state;
        for (size_t lane = first; lane < last; ++lane) {
            if (machine.fibers[lane].state != state) {
                return false;
            }
        }
        if (state != State::at_warp) {
            return true;
        }
        for (size_t lane = first; lane < last; ++lane) {
            machine.fibers[lane].state = State::ready;
        }
    }
}

inline bool run_block() {
    size_t const threads = machine.fibers.size();
    for (size_t i = 0; i < threads; ++i) {
        unsigned const x = machine.block_size.x, y = machine.block_size.y, t = static_cast<unsigned>(i);
        machine.fibers[i].index = dim3(t % x, t / x % y, t / x / y);
        machine.fibers[i].state = State::ready;
    }
    size_t const warps = (threads + kWarp - 1) / kWarp;
    for (;;) {
        size_t done = 0;
        for (size_t i = 0; i < warps; ++i) {
            size_t const first = in_order(i, warps) * kWarp;
            size_t const last = first + kWarp < threads ? first + kWarp : threads;
            if (machine.fibers[first].state == State::ready && !run_warp(first, last)) {
                return false;
            }
            done += machine.fibers[first].state == State::done ? 1 : 0;
        }
        if (done == warps) {
            return true;
        }
        if (done != 0) {
            return false; // a barrier that some warps never reach
        }
        for (Fiber& fiber : machine.fibers) {
            fiber.state = State::ready;
        }
    }
}

inline void launch(dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> kernel) {
    size_t const threads = static_cast<size_t>(block.x) * block.y * block.z;
    machine.shared.reset(new unsigned char[shared_bytes]);
    std::fill_n(machine.shared.get(), shared_bytes, uint8_t{0xFF}); // NaN, where it is read as it was
    if (machine.fibers.size() != threads) {
        make_fibers(threads);
    }
    machine.kernel = std::move(kernel);
    machine.grid_size = grid;
    machine.block_size = block;
    size_t const blocks = static_cast<size_t>(grid.x) * grid.y * grid.z;
    for (size_t i = 0; i < blocks && !machine.failed; ++i) {
        size_t const b = in_order(i, blocks);
        size_t const row = b / grid.x;
        machine.block_index = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(row % grid.y),
                                   static_cast<unsigned>(row / grid.y));
        if (!run_block()) {
            machine.failed = true;
            machine.fibers.clear(); // they stand in the middle of the kernel
        }
    }
}

inline uint32_t exchange(uint32_t offered, uint32_t (*of_warp)(Fiber const* lanes, uint32_t lane, uint32_t with),
                         uint32_t with) {
    size_t const me = machine.current;
    size_t const first = me / kWarp * kWarp;
    machine.fibers[me].offered = offered;
    wait(State::at_warp);
    uint32_t const result = of_warp(&machine.fibers[first], static_cast<uint32_t>(me - first), with);
    wait(State::at_warp);
    return result;
}

} // namespace emulator

#define threadIdx (emulator::machine.fibers[emulator::machine.current].index)
#define blockIdx (emulator::machine.block_index)
#define blockDim (emulator::machine.block_size)
#define gridDim (emulator::machine.grid_size)
#define PR_LAUNCH(kernel, grid, block, stream, ...) PR_LAUNCH_SHARED(kernel, grid, block, 0, stream, __VA_ARGS__)
#define PR_LAUNCH_SHARED(kernel, grid, block, bytes, stream, ...) \
    (static_cast<void>(stream), emulator::launch(grid, block, bytes, [=] { kernel(__VA_ARGS__); }))
#define PR_DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(emulator::machine.shared.get())

inline void __syncthreads() { emulator::wait(emulator::State::at_block); }

// The warp operations need whole warps: blocks are multiples of 32 threads here.
inline uint32_t __ballot_sync(uint32_t, int predicate) {
    auto const all = [](emulator::Fiber const* lanes, uint32_t, uint32_t) {
        uint32_t bits = 0;
        for (uint32_t lane = 0; lane < emulator::kWarp; ++lane) {
            bits |= lanes[lane].offered << lane;
        }
        return bits;
    };
    return emulator::exchange(predicate != 0 ? 1U : 0U, all, 0);
}

inline uint32_t __shfl_xor_sync(uint32_t, uint32_t value, int mask) {
    auto const other = [](emulator::Fiber const* lanes, uint32_t lane, uint32_t with) {
        return lanes[lane ^ with].offered;
    };
    return emulator::exchange(value, other, static_cast<uint32_t>(mask));
}

inline uint32_t atomicAdd(uint32_t* to, uint32_t value) {
    uint32_t const before = *to;
    *to = before + value;
    return before;
}

inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }

inline cudaError_t cudaPeekAtLastError() {
    return emulator::machine.failed ? cudaErrorLaunchFailure : cudaSuccess;
}

inline char const* cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    default:
        return "unspecified launch failure";
    }
}
