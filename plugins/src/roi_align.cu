// RoIAlign over a pyramid. A block pools one box in kChannels channels. The bilinear weights of a bin are a
// product of two axes', so the block first works out, along each axis, which cells a bin reads and the weight
// of each in the mean over the bin's samples; neighbouring samples read the same cells, and every cell is then
// read once a bin. A thread serves one bin in kAtOnce channels; neighbouring threads write neighbouring bins.
#include "roi_align.h"

#include "float_type.h"
#include "roi_taps.h"

namespace pointrend {
namespace {

constexpr uint32_t kThreads = 128;
constexpr int32_t kChannels = 32;
constexpr int32_t kAtOnce = 4;
constexpr int32_t kMaxGrid = 65535; // of the grid's y

static_assert(2 * kMaxRoiSide <= static_cast<int32_t>(kThreads), "a thread a bin of either axis");

// One map, and the canonical size from which boxes belong to it.
template <class T>
struct Level {
    T const* features;
    int32_t h;
    int32_t w;
    float scale; // cells a pixel
    float smallest;
};

template <class T>
struct Pyramid {
    Level<T> level[kMaxRoiLevels];
    int32_t levels;
    int32_t r;
    int32_t c;
    int32_t side;
    int32_t sampling;
};

// The bins of both axes, x's first: the cells each reads, and where their weights begin.
struct Bins {
    int32_t first[2 * kMaxRoiSide];
    int32_t length[2 * kMaxRoiSide];
    int32_t weights[2 * kMaxRoiSide];
};

// Grid: boxes, channels by kChannels. Dynamic shared memory: the weights of both axes.
template <class T>
__global__ void __launch_bounds__(kThreads)
    roi_align_kernel(float const* __restrict__ boxes, Pyramid<T> const pyramid, T* __restrict__ out) {
    PR_DYNAMIC_SHARED(float, weights);
    __shared__ Bins bins;
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const side = pyramid.side;
    int64_t const roi = blockIdx.x;
    int64_t const image = blockIdx.x / static_cast<uint32_t>(pyramid.r);
    Box const box = read_box(boxes + roi * 4);
    float const size = canonical_size(box);
    Level<T> level = pyramid.level[0];
#pragma unroll // known indices: otherwise the pyramid is copied to a stack
    for (int32_t i = 1; i < kMaxRoiLevels; ++i) {
        if (i < pyramid.levels && size >= pyramid.level[i].smallest) {
            level = pyramid.level[i];
        }
    }
    Axis const across = axis_of(box.x1, box.x2, level.scale, side, pyramid.sampling, level.w);
    Axis const down = axis_of(box.y1, box.y2, level.scale, side, pyramid.sampling, level.h);
    bool const some = across.count > 0 && down.count > 0; // of the whole block

    bool const has_bin = thread < 2 * side;
    Axis const axis = thread < side ? across : down;
    int32_t const bin_of_axis = thread < side ? thread : thread - side;
    Samples const samples = some && has_bin ? samples_of(axis, bin_of_axis) : Samples{0, 0};
    Cells const cells = cells_of(axis, bin_of_axis, samples);
    if (has_bin) {
        bins.first[thread] = cells.first;
        bins.length[thread] = cells.length;
    }
    __syncthreads();
    if (has_bin) {
        int32_t begin = 0;
        for (int32_t before = 0; before < thread; ++before) {
            begin += bins.length[before];
        }
        bins.weights[thread] = begin;
        for (int32_t cell = 0; cell < cells.length; ++cell) {
            weights[begin + cell] = 0.0F;
        }
        add_weights(axis, bin_of_axis, samples, cells, weights + begin);
    }
    __syncthreads();

    int32_t const first = static_cast<int32_t>(blockIdx.y) * kChannels;
    int32_t const channels = first + kChannels < pyramid.c ? kChannels : pyramid.c - first;
    int64_t const plane = static_cast<int64_t>(level.h) * level.w;
    T const* const from = level.features + (image * pyramid.c + first) * plane;
    int32_t const square = side * side;
    T* const to = out + (roi * pyramid.c + first) * square;
    int32_t const items = (channels - 1) / kAtOnce * square + square;
    for (int32_t item = thread; item < items; item += static_cast<int32_t>(kThreads)) {
        int32_t const bin = item % square;
        int32_t const channel = item / square * kAtOnce;
        int32_t const x = bin % side;
        int32_t const y = side + bin / side;
        float const* const x_weights = weights + bins.weights[x];
        float const* const y_weights = weights + bins.weights[y];
        int32_t const columns = bins.length[x];
        int32_t const rows = bins.length[y];
        T const* cell[kAtOnce]; // the last channel again where there are no more
        float sum[kAtOnce];
#pragma unroll
        for (int32_t i = 0; i < kAtOnce; ++i) {
            int32_t const wanted = channel + i < channels ? channel + i : channels - 1;
            cell[i] = from + wanted * plane + static_cast<int64_t>(bins.first[y]) * level.w + bins.first[x];
            sum[i] = 0.0F;
        }
        for (int32_t row = 0; row < rows; ++row) {
            float of_row[kAtOnce] = {};
            for (int32_t column = 0; column < columns; ++column) {
                float const weight = x_weights[column];
#pragma unroll
                for (int32_t i = 0; i < kAtOnce; ++i) {
                    of_row[i] += weight * read(cell[i] + column);
                }
            }
            float const weight = y_weights[row];
#pragma unroll
            for (int32_t i = 0; i < kAtOnce; ++i) {
                sum[i] += weight * of_row[i];
                cell[i] += level.w;
            }
        }
#pragma unroll
        for (int32_t i = 0; i < kAtOnce; ++i) {
            if (channel + i < channels) {
                write(to + (channel + i) * square + bin, sum[i]);
            }
        }
    }
}

template <class T>
cudaError_t launch(float const* boxes, T const* const* features, T* out, RoiAlignShape const& shape,
                   cudaStream_t stream) {
    if (wrong_with(shape) != nullptr || boxes == nullptr || features == nullptr || out == nullptr) {
        return cudaErrorInvalidValue;
    }
    Pyramid<T> pyramid{};
    int32_t longest = 0;
    for (int32_t i = 0; i < shape.levels; ++i) {
        if (features[i] == nullptr) {
            return cudaErrorInvalidValue;
        }
        int32_t const level = shape.first_level + i;
        float const smallest = i > 0 ? smallest_of_level(level) : 0.0F;
        pyramid.level[i] = Level<T>{features[i], shape.h[i], shape.w[i], ldexpf(1.0F, -level), smallest};
        longest = shape.h[i] + shape.w[i] > longest ? shape.h[i] + shape.w[i] : longest;
    }
    pyramid.levels = shape.levels;
    pyramid.r = shape.r;
    pyramid.c = shape.c;
    pyramid.side = shape.side;
    pyramid.sampling = shape.sampling;
    size_t const bytes = static_cast<size_t>(longest + 4 * shape.side) * sizeof(float);
    dim3 const grid(static_cast<uint32_t>(shape.n * shape.r), static_cast<uint32_t>((shape.c - 1) / kChannels + 1));
    PR_LAUNCH_SHARED(roi_align_kernel<T>, grid, dim3(kThreads), bytes, stream, boxes, pyramid, out);
    return cudaPeekAtLastError();
}

} // namespace

char const* wrong_with(RoiAlignShape const& shape) {
    if (shape.levels < 1 || shape.levels > kMaxRoiLevels) {
        return "levels is 1 to 4";
    }
    if (shape.first_level < 0 || shape.first_level > kMaxLevel + 1 - shape.levels) {
        return "the levels lie within 0 to 11";
    }
    if (shape.side < 1 || shape.side > kMaxRoiSide) {
        return "side is 1 to 64";
    }
    if (shape.sampling < 0 || shape.sampling > kMaxRoiSampling) {
        return "sampling_ratio is 1 to 16";
    }
    if (shape.n < 1 || shape.r < 1 || shape.c < 1 || static_cast<int64_t>(shape.n) * shape.r > INT32_MAX) {
        return "there is a box at least and a channel at least, and not 2^31 boxes";
    }
    if ((shape.c - 1) / kChannels >= kMaxGrid) {
        return "there are no more than 2097120 channels";
    }
    for (int32_t i = 0; i < shape.levels; ++i) {
        if (shape.h[i] < 1 || shape.w[i] < 1 || shape.h[i] > kMaxRoiCells - shape.w[i]) {
            return "height and width of a map are 1 at least, and 11000 together at the most";
        }
    }
    return nullptr;
}

cudaError_t roi_align(float const* boxes, float const* const* features, float* out, RoiAlignShape const& shape,
                      cudaStream_t stream) {
    return launch(boxes, features, out, shape, stream);
}

cudaError_t roi_align(float const* boxes, __half const* const* features, __half* out, RoiAlignShape const& shape,
                      cudaStream_t stream) {
    return launch(boxes, features, out, shape, stream);
}

} // namespace pointrend
