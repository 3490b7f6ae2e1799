// Recomputed points put into what was upsampled: the whole result is written once, then the points over it. A thread
// holds a point, so that the point's indices and logits are read as whole lines.
#include "refine.h"

#include "float_type.h"

#include <math.h>

namespace pointrend {
namespace {

constexpr uint32_t kThreads = 256;
constexpr int32_t kMaxGrid = 65535; // of the grid's y and z

// Grid: points, maps (images and their classes).
template <class T>
__global__ void __launch_bounds__(kThreads)
    put_logits_kernel(T const* __restrict__ point_logits, int64_t const* __restrict__ indices, float* __restrict__ out,
                      int32_t c, int32_t k, int64_t cells) {
    uint32_t const point = blockIdx.x * kThreads + threadIdx.x;
    if (point >= static_cast<uint32_t>(k)) {
        return;
    }
    int64_t const map = blockIdx.y;
    int64_t const cell = indices[map / c * k + point];
    if (cell >= 0 && cell < cells) {
        out[map * cells + cell] = read(point_logits + map * k + point);
    }
}

// Grid: labels of a row, rows.
__global__ void __launch_bounds__(kThreads)
    copy_labels_kernel(int32_t const* __restrict__ labels, int32_t* __restrict__ out, int32_t l) {
    uint32_t const at = blockIdx.x * kThreads + threadIdx.x;
    if (at < static_cast<uint32_t>(l)) {
        int64_t const row = static_cast<int64_t>(blockIdx.y) * l;
        out[row + at] = labels[row + at];
    }
}

// Grid: points, images.
template <class T>
__global__ void __launch_bounds__(kThreads)
    put_labels_kernel(T const* __restrict__ point_logits, int64_t const* __restrict__ indices,
                      int32_t* __restrict__ out, int32_t c, int32_t l, int32_t k) {
    uint32_t const point = blockIdx.x * kThreads + threadIdx.x;
    if (point >= static_cast<uint32_t>(k)) {
        return;
    }
    int64_t const image = blockIdx.y;
    T const* at = point_logits + image * c * k + point;
    float best = -INFINITY;
    int32_t label = 0;
#pragma unroll 4
    for (int32_t each = 0; each < c; ++each) {
        float const value = read(at);
        bool const higher = value > best;
        best = higher ? value : best;
        label = higher ? each : label;
        at += k;
    }
    int64_t const cell = indices[image * k + point];
    if (cell >= 0 && cell < l) {
        out[image * l + cell] = label;
    }
}

dim3 grid_of(int32_t along, int32_t down) {
    return dim3((static_cast<uint32_t>(along) - 1U) / kThreads + 1U, static_cast<uint32_t>(down));
}

} // namespace

cudaError_t refine_logits(Logits logits, int64_t const* indices, Logits point_logits, float* out, UpsampleShape shape,
                          int32_t k, cudaStream_t stream) {
    bool const fits = shape.n > 0 && shape.c > 0 && shape.n <= kMaxGrid / shape.c && k > 0 && k <= INT32_MAX / shape.c;
    if (!fits || indices == nullptr || point_logits.data == nullptr) {
        return cudaErrorInvalidValue;
    }
    UpsampleShape const maps{shape.n * shape.c, 1, shape.h, shape.w, shape.scale};
    cudaError_t const error = logits.half
                                  ? upsample(static_cast<__half const*>(logits.data), out, maps, stream)
                                  : upsample(static_cast<float const*>(logits.data), out, maps, stream);
    if (error != cudaSuccess) {
        return error;
    }
    int64_t const cells = static_cast<int64_t>(shape.h) * shape.scale * shape.w * shape.scale;
    dim3 const grid = grid_of(k, maps.n);
    if (point_logits.half) {
        PR_LAUNCH(put_logits_kernel<__half>, grid, dim3(kThreads), stream,
                  static_cast<__half const*>(point_logits.data), indices, out, shape.c, k, cells);
    } else {
        PR_LAUNCH(put_logits_kernel<float>, grid, dim3(kThreads), stream, static_cast<float const*>(point_logits.data),
                  indices, out, shape.c, k, cells);
    }
    return cudaPeekAtLastError();
}

cudaError_t refine_labels(int32_t const* labels, int64_t const* indices, Logits point_logits, int32_t* out, int32_t n,
                          int32_t c, int32_t l, int32_t k, cudaStream_t stream) {
    bool const fits = n > 0 && n <= kMaxGrid && c > 0 && l > 0 && k > 0;
    if (!fits || labels == nullptr || indices == nullptr || point_logits.data == nullptr || out == nullptr) {
        return cudaErrorInvalidValue;
    }
    PR_LAUNCH(copy_labels_kernel, grid_of(l, n), dim3(kThreads), stream, labels, out, l);
    dim3 const grid = grid_of(k, n);
    if (point_logits.half) {
        PR_LAUNCH(put_labels_kernel<__half>, grid, dim3(kThreads), stream,
                  static_cast<__half const*>(point_logits.data), indices, out, c, l, k);
    } else {
        PR_LAUNCH(put_labels_kernel<float>, grid, dim3(kThreads), stream, static_cast<float const*>(point_logits.data),
                  indices, out, c, l, k);
    }
    return cudaPeekAtLastError();
}

} // namespace pointrend
