// Upsampling with what follows it in the same pass. A thread holds four output cells, two by two, that lie between the
// same four source cells: four reads a class serve them all, and best, second best and label stay in registers while
// the classes go by. A block is a tile, so that a source row is read from the level-2 cache little more than once, and
// neighbouring threads read and write neighbouring cells.
#include "upsample.h"

#include "float_type.h"
#include "upsample_pair.h"

#include <math.h>

namespace pointrend {
namespace {

constexpr uint32_t kTileWidth = 32; // threads of a block along a row
constexpr uint32_t kTileHeight = 8;
constexpr uint32_t kThreads = kTileWidth * kTileHeight;
constexpr uint32_t kBlocks = 4; // of a multiprocessor: 64 registers a thread
constexpr uint32_t kMaxGrid = 65535; // of the grid's y and z

// The four cells that a thread reads of every map, and what it makes of them.
struct Quad {
    UpsamplePair down;
    UpsamplePair across;
    int64_t corner[4];

    // Output cells in the order of rows; sums along rows first, as torch has them.
    template <class T>
    __device__ __forceinline__ void values(T const* plane, float (&out)[4]) const {
        float const upper[2] = {read(plane + corner[0]), read(plane + corner[1])};
        float const lower[2] = {read(plane + corner[2]), read(plane + corner[3])};
#pragma unroll
        for (int32_t column = 0; column < 2; ++column) {
            float const right = across.weight[column];
            float const above = (1.0F - right) * upper[0] + right * upper[1];
            float const below = (1.0F - right) * lower[0] + right * lower[1];
#pragma unroll
            for (int32_t row = 0; row < 2; ++row) {
                out[row * 2 + column] = (1.0F - down.weight[row]) * above + down.weight[row] * below;
            }
        }
    }

    // Calls `write(i, cell)` for output cell i, of those that are on the map.
    template <class Write>
    __device__ __forceinline__ void each(int32_t width, Write const& write) const {
#pragma unroll
        for (int32_t i = 0; i < 4; ++i) {
            if (down.inside[i / 2] && across.inside[i % 2]) {
                write(i, static_cast<int64_t>(down.first + i / 2) * width + across.first + i % 2);
            }
        }
    }
};

// False for a thread beside the map.
__device__ __forceinline__ bool find_quad(UpsampleShape const& shape, Quad& quad) {
    uint32_t const column = blockIdx.x * kTileWidth + threadIdx.x % kTileWidth;
    uint32_t const row = blockIdx.y * kTileHeight + threadIdx.x / kTileWidth;
    if (column >= static_cast<uint32_t>(upsample_pairs(shape.w, shape.scale)) ||
        row >= static_cast<uint32_t>(upsample_pairs(shape.h, shape.scale))) {
        return false;
    }
    quad.down = upsample_pair(static_cast<int32_t>(row), shape.h, shape.scale);
    quad.across = upsample_pair(static_cast<int32_t>(column), shape.w, shape.scale);
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) {
        int64_t const line = i < 2 ? quad.down.low_cell : quad.down.high_cell;
        quad.corner[i] = line * shape.w + (i % 2 == 0 ? quad.across.low_cell : quad.across.high_cell);
    }
    return true;
}

__device__ __forceinline__ int64_t output_cells(UpsampleShape const& shape) {
    return static_cast<int64_t>(shape.h) * shape.scale * shape.w * shape.scale;
}

// Grid: tiles along a row, tiles along a column, images.
template <class T, bool with_labels>
__global__ void __launch_bounds__(kThreads, kBlocks)
    two_best_kernel(T const* __restrict__ logits, float* __restrict__ uncertainty, int32_t* __restrict__ labels,
                    UpsampleShape shape) {
    Quad quad;
    if (!find_quad(shape, quad)) {
        return;
    }
    int64_t const image = blockIdx.z;
    int64_t const cells = static_cast<int64_t>(shape.h) * shape.w;
    T const* plane = logits + image * shape.c * cells;
    float best[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    float second[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    int32_t label[4] = {};
#pragma unroll 2
    for (int32_t each = 0; each < shape.c; ++each) {
        float value[4];
        quad.values(plane, value);
#pragma unroll
        for (int32_t i = 0; i < 4; ++i) {
            bool const higher = value[i] > best[i]; // not where it is NaN, and fmaxf leaves NaN out too
            second[i] = fmaxf(second[i], higher ? best[i] : value[i]);
            best[i] = higher ? value[i] : best[i];
            if (with_labels) {
                label[i] = higher ? each : label[i];
            }
        }
        plane += cells;
    }
    int64_t const first = image * output_cells(shape);
    quad.each(shape.w * shape.scale, [&](int32_t i, int64_t cell) {
        uncertainty[first + cell] = second[i] - best[i];
        if (with_labels) {
            labels[first + cell] = label[i];
        }
    });
}

// Grid: as above; an image is a map of one class.
template <class T>
__global__ void __launch_bounds__(kThreads)
    upsample_maps_kernel(T const* __restrict__ logits, float* __restrict__ upsampled, UpsampleShape shape) {
    Quad quad;
    if (!find_quad(shape, quad)) {
        return;
    }
    int64_t const image = blockIdx.z;
    float value[4];
    quad.values(logits + image * shape.h * shape.w, value);
    int64_t const first = image * output_cells(shape);
    quad.each(shape.w * shape.scale, [&](int32_t i, int64_t cell) { upsampled[first + cell] = value[i]; });
}

// The grid; of no blocks for a shape outside its range.
dim3 grid_of(UpsampleShape const& shape) {
    bool const positive = shape.n > 0 && shape.c > 0 && shape.h > 0 && shape.w > 0;
    if (!positive || !is_upsample_scale(shape.scale) || static_cast<uint32_t>(shape.n) > kMaxGrid ||
        static_cast<int64_t>(shape.h) * shape.w > INT32_MAX / (shape.scale * shape.scale)) {
        return dim3(0U, 0U, 0U);
    }
    uint32_t const columns = static_cast<uint32_t>(upsample_pairs(shape.w, shape.scale));
    uint32_t const rows = static_cast<uint32_t>(upsample_pairs(shape.h, shape.scale));
    uint32_t const down = (rows - 1U) / kTileHeight + 1U;
    return down > kMaxGrid ? dim3(0U, 0U, 0U)
                           : dim3((columns - 1U) / kTileWidth + 1U, down, static_cast<uint32_t>(shape.n));
}

template <class T>
cudaError_t launch_two_best(T const* logits, float* uncertainty, int32_t* labels, UpsampleShape shape,
                            cudaStream_t stream) {
    dim3 const grid = grid_of(shape);
    if (grid.x == 0U || shape.c < 2 || logits == nullptr || uncertainty == nullptr) {
        return cudaErrorInvalidValue;
    }
    if (labels == nullptr) {
        PR_LAUNCH((two_best_kernel<T, false>), grid, dim3(kThreads), stream, logits, uncertainty, labels, shape);
    } else {
        PR_LAUNCH((two_best_kernel<T, true>), grid, dim3(kThreads), stream, logits, uncertainty, labels, shape);
    }
    return cudaPeekAtLastError();
}

template <class T>
cudaError_t launch_maps(T const* logits, float* upsampled, UpsampleShape shape, cudaStream_t stream) {
    dim3 const grid = grid_of(shape);
    if (grid.x == 0U || shape.c != 1 || logits == nullptr || upsampled == nullptr) {
        return cudaErrorInvalidValue;
    }
    PR_LAUNCH((upsample_maps_kernel<T>), grid, dim3(kThreads), stream, logits, upsampled, shape);
    return cudaPeekAtLastError();
}

} // namespace

cudaError_t upsample_two_best(float const* logits, float* uncertainty, int32_t* labels, UpsampleShape shape,
                              cudaStream_t stream) {
    return launch_two_best(logits, uncertainty, labels, shape, stream);
}

cudaError_t upsample_two_best(__half const* logits, float* uncertainty, int32_t* labels, UpsampleShape shape,
                              cudaStream_t stream) {
    return launch_two_best(logits, uncertainty, labels, shape, stream);
}

cudaError_t upsample(float const* logits, float* upsampled, UpsampleShape shape, cudaStream_t stream) {
    return launch_maps(logits, upsampled, shape, stream);
}

cudaError_t upsample(__half const* logits, float* upsampled, UpsampleShape shape, cudaStream_t stream) {
    return launch_maps(logits, upsampled, shape, stream);
}

} // namespace pointrend
