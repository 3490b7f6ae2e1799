// The first layer of the point head at points of RoIs. A block has some points of one RoI: their corners are worked out
// once, for the picture's map and for the RoI's own cells. Then neighbouring threads hold neighbouring channels of one
// point, so that reads and writes are whole lines wherever the points lie.
#include "sample_rois.h"

#include "bilinear.h"
#include "float_type.h"

namespace pointrend {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kPoints = 32;
constexpr size_t kBytesAtOnce = 16;

// Channels that are read and written at once.
template <class T, uint32_t kWide>
struct alignas(sizeof(T) * kWide) Lanes {
    T of[kWide];
};

// Adds the values at four corners; `from` is the first cell's, a cell has `stride` lanes.
template <class T, uint32_t kWide>
__device__ __forceinline__ void add_corners(float (&sum)[kWide], Corners const& at, Lanes<T, kWide> const* from,
                                            uint32_t stride) {
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
        if (at.inside[corner]) {
            Lanes<T, kWide> const cell = from[static_cast<int64_t>(at.offset[corner]) * stride];
#pragma unroll
            for (uint32_t i = 0U; i < kWide; ++i) {
                sum[i] += at.weight[corner] * read(&cell.of[i]);
            }
        }
    }
}

// Grid: RoIs by their blocks of kPoints points.
template <class T, uint32_t kWide>
__global__ void __launch_bounds__(kThreads)
    sample_rois_kernel(Lanes<T, kWide> const* __restrict__ table, Lanes<T, kWide> const* __restrict__ cells,
                       Lanes<T, kWide> const* __restrict__ bias, float const* __restrict__ boxes,
                       float const* __restrict__ points, Lanes<T, kWide>* __restrict__ out, SampleRoisShape shape,
                       uint32_t blocks) {
    __shared__ Corners on_map[kPoints];
    __shared__ Corners in_box[kPoints];
    int64_t const roi = blockIdx.x / blocks;
    uint32_t const first = blockIdx.x % blocks * kPoints;
    uint32_t const left = static_cast<uint32_t>(shape.p) - first;
    uint32_t const count = left < kPoints ? left : kPoints;
    if (threadIdx.x < count) {
        float const* const xy = points + (roi * shape.p + first + threadIdx.x) * 2;
        float const* const box = boxes + roi * 4;
        on_map[threadIdx.x] =
            corners(box[0] + xy[0] * (box[2] - box[0]), box[1] + xy[1] * (box[3] - box[1]), shape.h, shape.w);
        in_box[threadIdx.x] = corners(xy[0], xy[1], shape.side_h, shape.side_w);
    }
    __syncthreads();
    uint32_t const hidden = static_cast<uint32_t>(shape.c) / kWide;
    uint32_t const lanes = static_cast<uint32_t>(shape.d) / kWide;
    int64_t const picture = roi / (shape.r / shape.n);
    table += picture * shape.h * shape.w * hidden;
    cells += roi * shape.side_h * shape.side_w * lanes;
    out += (roi * shape.p + first) * lanes;
    for (uint32_t i = threadIdx.x; i < count * lanes; i += kThreads) {
        uint32_t const point = i / lanes;
        uint32_t const lane = i % lanes;
        float sum[kWide] = {};
        add_corners(sum, in_box[point], cells + lane, lanes);
        if (lane < hidden) {
            add_corners(sum, on_map[point], table + lane, hidden);
            Lanes<T, kWide> const offset = bias[lane];
#pragma unroll
            for (uint32_t j = 0U; j < kWide; ++j) {
                float const value = sum[j] + read(&offset.of[j]);
                sum[j] = value < 0.0F ? 0.0F : value; // NaN stays
            }
        }
        Lanes<T, kWide> result;
#pragma unroll
        for (uint32_t j = 0U; j < kWide; ++j) {
            write(&result.of[j], sum[j]);
        }
        out[i] = result;
    }
}

template <class T, uint32_t kWide>
cudaError_t launch(T const* table, T const* cells, T const* bias, float const* boxes, float const* points, T* out,
                   SampleRoisShape shape, uint32_t blocks, cudaStream_t stream) {
    using Wide = Lanes<T, kWide>;
    dim3 const grid(static_cast<uint32_t>(shape.r) * blocks);
    PR_LAUNCH((sample_rois_kernel<T, kWide>), grid, dim3(kThreads), stream, reinterpret_cast<Wide const*>(table),
              reinterpret_cast<Wide const*>(cells), reinterpret_cast<Wide const*>(bias), boxes, points,
              reinterpret_cast<Wide*>(out), shape, blocks);
    return cudaPeekAtLastError();
}

bool aligned(void const* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kBytesAtOnce == 0U; }

template <class T>
cudaError_t choose(T const* table, T const* cells, T const* bias, float const* boxes, float const* points, T* out,
                   SampleRoisShape shape, cudaStream_t stream) {
    bool const positive = shape.n > 0 && shape.h > 0 && shape.w > 0 && shape.c > 0 && shape.r > 0 &&
                          shape.side_h > 0 && shape.side_w > 0 && shape.p > 0;
    if (!positive || table == nullptr || cells == nullptr || bias == nullptr || boxes == nullptr ||
        points == nullptr || out == nullptr || shape.d < shape.c || shape.r % shape.n != 0 ||
        static_cast<int64_t>(shape.h) * shape.w > INT32_MAX ||
        static_cast<int64_t>(shape.side_h) * shape.side_w > INT32_MAX || shape.d > INT32_MAX / 64) {
        return cudaErrorInvalidValue;
    }
    uint32_t const blocks = (static_cast<uint32_t>(shape.p) - 1U) / kPoints + 1U;
    if (static_cast<int64_t>(shape.r) * blocks > INT32_MAX) {
        return cudaErrorInvalidValue;
    }
    constexpr uint32_t kWide = kBytesAtOnce / sizeof(T);
    bool const whole = static_cast<uint32_t>(shape.c) % kWide == 0U && static_cast<uint32_t>(shape.d) % kWide == 0U;
    if (whole && aligned(table) && aligned(cells) && aligned(bias) && aligned(out)) {
        return launch<T, kWide>(table, cells, bias, boxes, points, out, shape, blocks, stream);
    }
    return launch<T, 1U>(table, cells, bias, boxes, points, out, shape, blocks, stream);
}

} // namespace

cudaError_t sample_rois(float const* table, float const* cells, float const* bias, float const* boxes,
                        float const* points, float* out, SampleRoisShape shape, cudaStream_t stream) {
    return choose(table, cells, bias, boxes, points, out, shape, stream);
}

cudaError_t sample_rois(__half const* table, __half const* cells, __half const* bias, float const* boxes,
                        float const* points, __half* out, SampleRoisShape shape, cudaStream_t stream) {
    return choose(table, cells, bias, boxes, points, out, shape, stream);
}

} // namespace pointrend
