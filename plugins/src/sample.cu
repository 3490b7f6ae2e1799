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

// Where a row's points are: given as (x, y), or as cells of a grid, by flat index.
struct AtPoints {
    float const* __restrict__ xy;

    __device__ __forceinline__ Corners operator()(int64_t point, SampleShape const& shape) const {
        return corners(xy[point * 2], xy[point * 2 + 1], shape.h, shape.w);
    }
};

struct AtCells {
    int64_t const* __restrict__ indices;
    int32_t grid_height;
    int32_t grid_width;

    __device__ __forceinline__ Corners operator()(int64_t point, SampleShape const& shape) const {
        int64_t const index = indices[point];
        bool const on_grid = index >= 0 && index < static_cast<int64_t>(grid_height) * grid_width;
        int32_t const row = on_grid ? static_cast<int32_t>(index / grid_width) : -grid_height - 1; // nowhere
        int32_t const column = on_grid ? static_cast<int32_t>(index % grid_width) : 0;
        return corners(cell_centre(column, grid_width), cell_centre(row, grid_height), shape.h, shape.w);
    }
};

// Where the results of an image go, how far apart images are, and how many channels are written: those past the
// features' are zeros.
template <class T>
struct Written {
    T* __restrict__ out;
    int64_t image_stride;
    int32_t channels;
};

// Grid: points, channels by kChannels, images.
template <class T, class Where>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(T const* __restrict__ features, Where where, Written<T> written, SampleShape shape) {
    uint32_t const point = blockIdx.x * kThreads + threadIdx.x;
    if (point >= static_cast<uint32_t>(shape.p)) {
        return;
    }
    int64_t const image = blockIdx.z;
    Corners const at = where(image * shape.p + point, shape);
    int32_t const first = static_cast<int32_t>(blockIdx.y) * kChannels;
    int32_t const last = first + kChannels < shape.c ? first + kChannels : shape.c;
    int64_t const cells = static_cast<int64_t>(shape.h) * shape.w;
    T const* plane = features + (image * shape.c + first) * cells;
    T* to = written.out + image * written.image_stride + static_cast<int64_t>(first) * shape.p + point;
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
    for (int32_t channel = last > first ? last : first; channel < first + kChannels && channel < written.channels;
         ++channel) {
        write(to, 0.0F);
        to += shape.p;
    }
}

// Grid: points by kLastPoints, channels by kLastChannels, images. `reads` a cell, the last with channels that fill it.
template <class Where>
__global__ void __launch_bounds__(kLastThreads)
    sample_last_kernel(EightHalves const* __restrict__ features, Where where, Written<__half> written,
                       SampleShape shape, uint32_t reads) {
    __shared__ __half tile[kLastChannels][kLastPoints + 2U]; // two more: rows begin in other banks
    int64_t const image = blockIdx.z;
    uint32_t const first_point = blockIdx.x * kLastPoints;
    uint32_t const first_channel = blockIdx.y * kLastChannels;
    uint32_t const row = threadIdx.x % kReads;
    uint32_t const column = threadIdx.x / kReads;
    uint32_t const mine = blockIdx.y * kReads + row;
    if (first_point + column < static_cast<uint32_t>(shape.p) && mine < reads) {
        Corners const at = where(image * shape.p + first_point + column, shape);
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
        if (channel < static_cast<uint32_t>(written.channels) && point < static_cast<uint32_t>(shape.p)) {
            __half* const to = written.out + image * written.image_stride + static_cast<int64_t>(channel) * shape.p;
            to[point] = channel < static_cast<uint32_t>(shape.c) ? tile[i / kLastPoints][i % kLastPoints]
                                                                 : __float2half_rn(0.0F);
        }
    }
}

bool can_launch(void const* features, void const* points, void const* out, SampleShape shape, int32_t channels,
                int32_t block_channels) {
    bool const positive = shape.n > 0 && shape.c > 0 && shape.h > 0 && shape.w > 0 && shape.p > 0;
    return positive && features != nullptr && points != nullptr && out != nullptr && shape.n <= kMaxGrid &&
           static_cast<int64_t>(shape.h) * shape.w <= INT32_MAX && (channels - 1) / block_channels < kMaxGrid;
}

template <class T, class Where>
cudaError_t launch(T const* features, Where where, Written<T> written, SampleShape shape, cudaStream_t stream) {
    dim3 const grid((static_cast<uint32_t>(shape.p) - 1U) / kThreads + 1U,
                    static_cast<uint32_t>((written.channels - 1) / kChannels + 1), static_cast<uint32_t>(shape.n));
    PR_LAUNCH((sample_kernel<T, Where>), grid, dim3(kThreads), stream, features, where, written, shape);
    return cudaPeekAtLastError();
}

template <class Where>
cudaError_t launch_last(__half const* features, Where where, Written<__half> written, SampleShape shape,
                        cudaStream_t stream) {
    dim3 const grid((static_cast<uint32_t>(shape.p) - 1U) / kLastPoints + 1U,
                    (static_cast<uint32_t>(written.channels) - 1U) / kLastChannels + 1U, static_cast<uint32_t>(shape.n));
    PR_LAUNCH(sample_last_kernel<Where>, grid, dim3(kLastThreads), stream,
              reinterpret_cast<EightHalves const*>(features), where, written, shape,
              (static_cast<uint32_t>(shape.c) - 1U) / kAtOnce + 1U);
    return cudaPeekAtLastError();
}

bool misaligned(void const* features) { return reinterpret_cast<uintptr_t>(features) % alignof(EightHalves) != 0U; }

template <class T>
cudaError_t sample_points(T const* features, float const* points, T* out, SampleShape shape, cudaStream_t stream) {
    if (!can_launch(features, points, out, shape, shape.c, kChannels)) {
        return cudaErrorInvalidValue;
    }
    Written<T> const written{out, static_cast<int64_t>(shape.c) * shape.p, shape.c};
    return launch(features, AtPoints{points}, written, shape, stream);
}

// One of the two maps of sample_cells, into `written.channels` channels.
template <class T>
cudaError_t sample_map(MapToSample const& map, AtCells where, Written<T> written, SampleShape shape,
                       cudaStream_t stream) {
    if constexpr (sizeof(T) == sizeof(__half)) {
        if (map.channels_last) {
            return misaligned(map.data) ? cudaErrorInvalidValue
                                        : launch_last(static_cast<__half const*>(map.data), where, written, shape, stream);
        }
    }
    return launch(static_cast<T const*>(map.data), where, written, shape, stream);
}

template <class T>
cudaError_t sample_both(MapToSample const& fine, MapToSample const& coarse, int64_t const* indices, T* out,
                        CellsShape const& shape, cudaStream_t stream) {
    int32_t const channels = sampled_channels(fine.c, coarse.c);
    AtCells const where{indices, shape.grid_height, shape.grid_width};
    SampleShape const of_fine{shape.n, fine.c, fine.h, fine.w, shape.k};
    SampleShape const of_coarse{shape.n, coarse.c, coarse.h, coarse.w, shape.k};
    int64_t const stride = static_cast<int64_t>(channels) * shape.k;
    T* const below = out + static_cast<int64_t>(fine.c) * shape.k;
    if (cudaError_t const error = sample_map(fine, where, Written<T>{out, stride, fine.c}, of_fine, stream)) {
        return error;
    }
    return sample_map(coarse, where, Written<T>{below, stride, channels - fine.c}, of_coarse, stream);
}

} // namespace

cudaError_t sample(float const* features, float const* points, float* out, SampleShape shape, cudaStream_t stream) {
    return sample_points(features, points, out, shape, stream);
}

cudaError_t sample(__half const* features, float const* points, __half* out, SampleShape shape, cudaStream_t stream) {
    return sample_points(features, points, out, shape, stream);
}

cudaError_t sample_channels_last(__half const* features, float const* points, __half* out, SampleShape shape,
                                 cudaStream_t stream) {
    if (misaligned(features) || !can_launch(features, points, out, shape, shape.c, kLastChannels)) {
        return cudaErrorInvalidValue;
    }
    Written<__half> const written{out, static_cast<int64_t>(shape.c) * shape.p, shape.c};
    return launch_last(features, AtPoints{points}, written, shape, stream);
}

cudaError_t sample_cells(MapToSample const& fine, MapToSample const& coarse, int64_t const* indices, void* out,
                         bool half, CellsShape const& shape, cudaStream_t stream) {
    bool const positive = shape.grid_height > 0 && shape.grid_width > 0 && fine.c > 0 && coarse.c > 0 &&
                          fine.c <= INT32_MAX / 4 && coarse.c <= INT32_MAX / 4;
    if (!positive || static_cast<int64_t>(shape.grid_height) * shape.grid_width > INT32_MAX) {
        return cudaErrorInvalidValue;
    }
    int32_t const channels = sampled_channels(fine.c, coarse.c);
    for (MapToSample const* map : {&fine, &coarse}) {
        SampleShape const one{shape.n, map->c, map->h, map->w, shape.k};
        if ((map->channels_last && !half) || !can_launch(map->data, indices, out, one, channels, kChannels)) {
            return cudaErrorInvalidValue;
        }
    }
    return half ? sample_both(fine, coarse, indices, static_cast<__half*>(out), shape, stream)
                : sample_both(fine, coarse, indices, static_cast<float*>(out), shape, stream);
}

} // namespace pointrend
