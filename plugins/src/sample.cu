// The sampler. A thread holds one point: its corners are worked out once and serve kChannels channels.
// Neighbouring threads hold neighbouring points, so that writes are whole lines and reads are as close
// together as the points are.
//
// Where channels come last, neighbouring threads hold neighbouring channels of one point, so that reads are whole
// lines wherever the points lie; the results turn round in shared memory, and writes are whole lines too.
#include "sample.h"

#include "bilinear.h"
#include "float_type.h"

namespace pointrend {
namespace {

constexpr uint32_t kThreads = 128;
constexpr int32_t kChannels = 16;
constexpr int32_t kMaxGrid = 65535; // of the grid's y and z

// With the channels last: a block's points and channels, and the channels of one read.
constexpr uint32_t kLastThreads = 256;
constexpr uint32_t kLastPoints = 32;
constexpr uint32_t kLastChannels = 64;
constexpr uint32_t kAtOnce = 8;
constexpr uint32_t kReads = kLastChannels / kAtOnce;

static_assert(kLastPoints * kReads == kLastThreads, "a thread a point and read");

struct alignas(16) EightHalves {
    __half of[kAtOnce];
};

// Grid: points, channels by kChannels, images.
template <class T>
__global__ void __launch_bounds__(kThreads) sample_kernel(T const* __restrict__ features, float const* __restrict__ points,
                                                           T* __restrict__ out, SampleShape shape) {
    uint32_t const point = blockIdx.x * kThreads + threadIdx.x;
    if (point >= static_cast<uint32_t>(shape.p)) {
        return;
    }
    int64_t const image = blockIdx.z;
    float const* const xy = points + (image * shape.p + point) * 2;
    Corners const at = corners(xy[0], xy[1], shape.h, shape.w);
    int32_t const first = static_cast<int32_t>(blockIdx.y) * kChannels;
    int32_t const last = first + kChannels < shape.c ? first + kChannels : shape.c;
    int64_t const cells = static_cast<int64_t>(shape.h) * shape.w;
    T const* plane = features + (image * shape.c + first) * cells;
    T* to = out + (image * shape.c + first) * shape.p + point;
#pragma unroll 4
    for (int32_t channel = first; channel < last; ++channel) {
        float sum = 0.0F;
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
            if (at.inside[corner]) {
                sum += at.weight[corner] * read(plane + at.offset[corner]);
            }
        }
        write(to, sum);
        plane += cells;
        to += shape.p;
    }
}

// Grid: points by kLastPoints, channels by kLastChannels, images. `reads` a cell, the last with channels that fill it.
__global__ void __launch_bounds__(kLastThreads)
    sample_last_kernel(EightHalves const* __restrict__ features, float const* __restrict__ points,
                       __half* __restrict__ out, SampleShape shape, uint32_t reads) {
    __shared__ __half tile[kLastChannels][kLastPoints + 2U]; // two more: rows begin in other banks
    int64_t const image = blockIdx.z;
    uint32_t const first_point = blockIdx.x * kLastPoints;
    uint32_t const first_channel = blockIdx.y * kLastChannels;
    uint32_t const row = threadIdx.x % kReads;
    uint32_t const column = threadIdx.x / kReads;
    uint32_t const mine = blockIdx.y * kReads + row;
    if (first_point + column < static_cast<uint32_t>(shape.p) && mine < reads) {
        float const* const xy = points + (image * shape.p + first_point + column) * 2;
        Corners const at = corners(xy[0], xy[1], shape.h, shape.w);
        EightHalves const* const from = features + image * shape.h * shape.w * reads + mine;
        float sum[kAtOnce] = {};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
            if (at.inside[corner]) {
                EightHalves const cell = from[static_cast<int64_t>(at.offset[corner]) * reads];
#pragma unroll
                for (uint32_t i = 0U; i < kAtOnce; ++i) {
                    sum[i] += at.weight[corner] * __half2float(cell.of[i]);
                }
            }
        }
#pragma unroll
        for (uint32_t i = 0U; i < kAtOnce; ++i) {
            write(&tile[row * kAtOnce + i][column], sum[i]);
        }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < kLastChannels * kLastPoints; i += kLastThreads) {
        uint32_t const channel = first_channel + i / kLastPoints;
        uint32_t const point = first_point + i % kLastPoints;
        if (channel < static_cast<uint32_t>(shape.c) && point < static_cast<uint32_t>(shape.p)) {
            out[(image * shape.c + channel) * shape.p + point] = tile[i / kLastPoints][i % kLastPoints];
        }
    }
}

bool can_launch(void const* features, float const* points, void const* out, SampleShape shape, int32_t block_channels) {
    bool const positive = shape.n > 0 && shape.c > 0 && shape.h > 0 && shape.w > 0 && shape.p > 0;
    return positive && features != nullptr && points != nullptr && out != nullptr && shape.n <= kMaxGrid &&
           static_cast<int64_t>(shape.h) * shape.w <= INT32_MAX && (shape.c - 1) / block_channels < kMaxGrid;
}

template <class T>
cudaError_t launch(T const* features, float const* points, T* out, SampleShape shape, cudaStream_t stream) {
    if (!can_launch(features, points, out, shape, kChannels)) {
        return cudaErrorInvalidValue;
    }
    dim3 const grid((static_cast<uint32_t>(shape.p) - 1U) / kThreads + 1U,
                    static_cast<uint32_t>((shape.c - 1) / kChannels + 1), static_cast<uint32_t>(shape.n));
    PR_LAUNCH(sample_kernel<T>, grid, dim3(kThreads), stream, features, points, out, shape);
    return cudaPeekAtLastError();
}

} // namespace

cudaError_t sample(float const* features, float const* points, float* out, SampleShape shape, cudaStream_t stream) {
    return launch(features, points, out, shape, stream);
}

cudaError_t sample(__half const* features, float const* points, __half* out, SampleShape shape, cudaStream_t stream) {
    return launch(features, points, out, shape, stream);
}

cudaError_t sample_channels_last(__half const* features, float const* points, __half* out, SampleShape shape,
                                 cudaStream_t stream) {
    bool const misaligned = reinterpret_cast<uintptr_t>(features) % alignof(EightHalves) != 0U;
    if (misaligned || !can_launch(features, points, out, shape, kLastChannels)) {
        return cudaErrorInvalidValue;
    }
    uint32_t const channels = static_cast<uint32_t>(shape.c);
    dim3 const grid((static_cast<uint32_t>(shape.p) - 1U) / kLastPoints + 1U, (channels - 1U) / kLastChannels + 1U,
                    static_cast<uint32_t>(shape.n));
    PR_LAUNCH(sample_last_kernel, grid, dim3(kLastThreads), stream, reinterpret_cast<EightHalves const*>(features),
              points, out, shape, (channels - 1U) / kAtOnce + 1U);
    return cudaPeekAtLastError();
}

} // namespace pointrend
