// Random numbers, and buffers in which a sanitizer sees what goes beside them.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <random>

namespace checks {

inline std::mt19937 generator(1);

inline float random(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator); }

// A buffer of exactly `count` elements on the heap.
template <class T>
std::unique_ptr<T[]> buffer(size_t count) {
    return std::unique_ptr<T[]>(new T[count]);
}

using Workspace = std::unique_ptr<void, void (*)(void*)>;

// As the device's memory is aligned.
inline Workspace workspace_of(size_t bytes) {
    void* memory = nullptr;
    return Workspace(posix_memalign(&memory, 256, bytes) == 0 ? memory : nullptr, std::free);
}

} // namespace checks
