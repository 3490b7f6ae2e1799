// The sampler. A thread holds one point: its corners are worked out once and serve kChannels channels.
// Neighbouring threads hold neighbouring points, so that writes are whole lines and reads are as close
// together as the points are.
#include "sample.h"

#include "bilinear.h"
#include "float_type.h"

namespace pointrend {
namespace {

constexpr uint32_t kThreads = 128;
constexpr int32_t kChannels = 16;
constexpr int32_t kMaxGrid = 65535; // of the grid's y and z

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

template <class T>
cudaError_t launch(T const* features, float const* points, T* out, SampleShape shape, cudaStream_t stream) {
    int64_t const cells = static_cast<int64_t>(shape.h) * shape.w;
    bool const positive = shape.n > 0 && shape.c > 0 && shape.h > 0 && shape.w > 0 && shape.p > 0;
    if (!positive || features == nullptr || points == nullptr || out == nullptr) {
        return cudaErrorInvalidValue;
    }
    int32_t const groups = (shape.c - 1) / kChannels + 1;
    if (cells > INT32_MAX || shape.n > kMaxGrid || groups > kMaxGrid) {
        return cudaErrorInvalidValue;
    }
    dim3 const grid((static_cast<uint32_t>(shape.p) - 1U) / kThreads + 1U, static_cast<unsigned>(groups),
                    static_cast<unsigned>(shape.n));
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

} // namespace pointrend
