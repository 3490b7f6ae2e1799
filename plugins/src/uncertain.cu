// The k highest of a row, exactly: a radix select finds the k-th highest key in three passes of 11, 11 and
// 10 bits; then every segment of the row is counted, and written to a place that the counts before it fix.
// No step depends on the order in which threads run, so neither does the result.
#include "uncertain.h"

#include "order_key.h"

namespace pointrend {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kWarp = 32;
constexpr uint32_t kBins = 2048;
constexpr uint32_t kBinsPerThread = kBins / kThreads;
constexpr uint32_t kSegment = 1024; // cells that one warp counts and writes
constexpr uint32_t kSegmentsPerBlock = kThreads / kWarp;
constexpr uint32_t kMaxHistogramBlocks = 512;
constexpr uint32_t kEveryLane = 0xFFFFFFFFU;
constexpr int32_t kMaxGrid = 65535; // of the grid's y
constexpr size_t kAlignment = 256;

// A row's state. `key` has the bits of the k-th highest key that are known so far, `need` the number of cells still
// to be chosen among those that agree with them.
struct Row {
    uint32_t key;
    uint32_t need;
    uint32_t bins[kBins];
};

// Counts of a segment: cells above the k-th key and cells equal to it. After the scan: the place of its first
// index, and the number of its equal cells that are chosen.
struct Segment {
    uint32_t above_or_place;
    uint32_t equal_or_wanted;
};

uint32_t segments_of(int32_t l) { return (static_cast<uint32_t>(l) - 1U) / kSegment + 1U; }

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

__global__ void __launch_bounds__(kThreads) start_kernel(Row* rows, uint32_t k) {
    Row& row = rows[blockIdx.x];
    for (uint32_t bin = threadIdx.x; bin < kBins; bin += kThreads) {
        row.bins[bin] = 0U;
    }
    if (threadIdx.x == 0U) {
        row.key = 0U;
        row.need = k;
    }
}

// Count, by the bits from `shift` on, the keys whose bits in `known` agree with the row's. Grid: x, rows.
__global__ void __launch_bounds__(kThreads)
    histogram_kernel(float const* __restrict__ values, uint32_t l, Row* rows, uint32_t shift, uint32_t known) {
    __shared__ uint32_t bins[kBins];
    for (uint32_t bin = threadIdx.x; bin < kBins; bin += kThreads) {
        bins[bin] = 0U;
    }
    __syncthreads();
    Row& row = rows[blockIdx.y];
    uint32_t const wanted = row.key;
    values += static_cast<size_t>(blockIdx.y) * l;
    // 64 bits: the last stride may step over 2^32.
    size_t const stride = static_cast<size_t>(gridDim.x) * kThreads;
    for (size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; i < l; i += stride) {
        uint32_t const key = order_key(values[i]);
        if ((key & known) == wanted) {
            atomicAdd(&bins[(key >> shift) & (kBins - 1U)], 1U);
        }
    }
    __syncthreads();
    for (uint32_t bin = threadIdx.x; bin < kBins; bin += kThreads) {
        if (bins[bin] != 0U) {
            atomicAdd(&row.bins[bin], bins[bin]);
        }
    }
}

// Inclusive prefix sum over a block, in `sums`. The barrier after it is the caller's.
__device__ __forceinline__ void block_scan(uint32_t* sums) {
    for (uint32_t distance = 1U; distance < kThreads; distance *= 2U) {
        uint32_t const before = threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0U;
        __syncthreads();
        sums[threadIdx.x] += before;
        __syncthreads();
    }
}

// The bin of the k-th highest key, and the row made ready for the next pass. Grid: rows.
__global__ void __launch_bounds__(kThreads) choose_bin_kernel(Row* rows, uint32_t shift) {
    __shared__ uint32_t sums[kThreads];
    Row& row = rows[blockIdx.x];
    uint32_t const need = row.need;
    uint32_t counts[kBinsPerThread];
    uint32_t const top = kBins - 1U - threadIdx.x * kBinsPerThread; // thread 0 holds the highest bins
    uint32_t total = 0U;
#pragma unroll
    for (uint32_t j = 0U; j < kBinsPerThread; ++j) {
        counts[j] = row.bins[top - j];
        total += counts[j];
        row.bins[top - j] = 0U;
    }
    sums[threadIdx.x] = total;
    __syncthreads();
    block_scan(sums);
    uint32_t above = sums[threadIdx.x] - total;
    // True for exactly one thread: `above < need` for it and those before, `need <= above + total` for it and those
    // after.
    if (above < need && need <= above + total) {
        bool found = false;
#pragma unroll
        for (uint32_t j = 0U; j < kBinsPerThread; ++j) {
            if (!found && need <= above + counts[j]) {
                row.key |= (top - j) << shift;
                row.need = need - above;
                found = true;
            }
            above += counts[j];
        }
    }
}

// Cells above and equal, a warp a segment. Grid: segments by kSegmentsPerBlock, rows.
__global__ void __launch_bounds__(kThreads)
    count_kernel(float const* __restrict__ values, uint32_t l, Row const* rows, Segment* segments, uint32_t row_segments) {
    uint32_t const segment = blockIdx.x * kSegmentsPerBlock + threadIdx.x / kWarp;
    if (segment >= row_segments) {
        return; // whole warps leave
    }
    uint32_t const threshold = rows[blockIdx.y].key;
    values += static_cast<size_t>(blockIdx.y) * l;
    uint32_t const first = segment * kSegment;
    uint32_t const last = l - first < kSegment ? l : first + kSegment;
    uint32_t counts = 0U; // above in the low half, equal in the high half: a segment has 1024 cells
    for (uint32_t i = first + threadIdx.x % kWarp; i < last; i += kWarp) {
        uint32_t const key = order_key(values[i]);
        counts += key > threshold ? 1U : key == threshold ? 0x10000U : 0U;
    }
    for (uint32_t lanes = kWarp / 2U; lanes > 0U; lanes /= 2U) {
        counts += __shfl_xor_sync(kEveryLane, counts, static_cast<int>(lanes));
    }
    if (threadIdx.x % kWarp == 0U) {
        Segment& to = segments[static_cast<size_t>(blockIdx.y) * row_segments + segment];
        to.above_or_place = counts & 0xFFFFU;
        to.equal_or_wanted = counts >> 16U;
    }
}

// Counts -> places, and how many equal cells each segment gives: the first ones of the row. Grid: rows.
__global__ void __launch_bounds__(kThreads) place_kernel(Row const* rows, Segment* segments, uint32_t row_segments) {
    __shared__ uint32_t above_sums[kThreads];
    __shared__ uint32_t equal_sums[kThreads];
    segments += static_cast<size_t>(blockIdx.x) * row_segments;
    uint32_t const need = rows[blockIdx.x].need;
    uint32_t above_before = 0U;
    uint32_t equal_before = 0U;
    for (uint32_t first = 0U; first < row_segments; first += kThreads) {
        uint32_t const segment = first + threadIdx.x;
        bool const present = segment < row_segments;
        Segment const counts = present ? segments[segment] : Segment{0U, 0U};
        above_sums[threadIdx.x] = counts.above_or_place;
        equal_sums[threadIdx.x] = counts.equal_or_wanted;
        __syncthreads();
        block_scan(above_sums);
        block_scan(equal_sums);
        uint32_t const above = above_before + above_sums[threadIdx.x] - counts.above_or_place;
        uint32_t const equal = equal_before + equal_sums[threadIdx.x] - counts.equal_or_wanted;
        if (present) {
            uint32_t const left = equal < need ? need - equal : 0U;
            segments[segment].above_or_place = above + (equal < need ? equal : need);
            segments[segment].equal_or_wanted = left < counts.equal_or_wanted ? left : counts.equal_or_wanted;
        }
        above_before += above_sums[kThreads - 1U];
        equal_before += equal_sums[kThreads - 1U];
        __syncthreads();
    }
}

// Indices to their places, a warp a segment. Grid: as count_kernel.
__global__ void __launch_bounds__(kThreads)
    write_kernel(float const* __restrict__ values, uint32_t l, uint32_t k, Row const* rows, Segment const* segments,
                 uint32_t row_segments, int64_t* __restrict__ indices) {
    uint32_t const segment = blockIdx.x * kSegmentsPerBlock + threadIdx.x / kWarp;
    if (segment >= row_segments) {
        return; // whole warps leave
    }
    uint32_t const threshold = rows[blockIdx.y].key;
    Segment const mine = segments[static_cast<size_t>(blockIdx.y) * row_segments + segment];
    values += static_cast<size_t>(blockIdx.y) * l;
    indices += static_cast<size_t>(blockIdx.y) * k;
    uint32_t const lane = threadIdx.x % kWarp;
    uint32_t const lanes_below = (1U << lane) - 1U;
    uint32_t const first = segment * kSegment;
    uint32_t const last = l - first < kSegment ? l : first + kSegment;
    uint32_t place = mine.above_or_place;
    uint32_t wanted = mine.equal_or_wanted;
    for (uint32_t start = first; start < last; start += kWarp) {
        uint32_t const left = last - start; // lanes with a cell; start + lane may pass 2^31 but not 2^32
        uint32_t const key = lane < left ? order_key(values[start + lane]) : 0U;
        bool const equal = lane < left && key == threshold;
        uint32_t const equals = __ballot_sync(kEveryLane, equal ? 1 : 0);
        bool const above = lane < left && key > threshold;
        bool const chosen = above || (equal && static_cast<uint32_t>(__popc(equals & lanes_below)) < wanted);
        uint32_t const choices = __ballot_sync(kEveryLane, chosen ? 1 : 0);
        if (chosen) {
            indices[place + static_cast<uint32_t>(__popc(choices & lanes_below))] = start + lane;
        }
        place += static_cast<uint32_t>(__popc(choices));
        uint32_t const given = static_cast<uint32_t>(__popc(equals));
        wanted = given < wanted ? wanted - given : 0U;
    }
}

} // namespace

size_t uncertain_workspace(int32_t n, int32_t l) {
    if (n < 1 || n > kMaxGrid || l < 1) {
        return 0U;
    }
    size_t const rows = static_cast<size_t>(n);
    return aligned(rows * sizeof(Row)) + aligned(rows * segments_of(l) * sizeof(Segment));
}

cudaError_t uncertain(float const* uncertainty, int64_t* indices, int32_t n, int32_t l, int32_t k, void* workspace,
                      size_t workspace_bytes, cudaStream_t stream) {
    size_t const needed = uncertain_workspace(n, l);
    bool const misaligned = reinterpret_cast<uintptr_t>(workspace) % kAlignment != 0U;
    if (needed == 0U || k < 1 || k > l || workspace_bytes < needed || misaligned || uncertainty == nullptr ||
        indices == nullptr || workspace == nullptr) {
        return cudaErrorInvalidValue;
    }
    uint32_t const images = static_cast<uint32_t>(n);
    uint32_t const length = static_cast<uint32_t>(l);
    uint32_t const count = static_cast<uint32_t>(k);
    uint32_t const row_segments = segments_of(l);
    Row* const rows = static_cast<Row*>(workspace);
    auto* const segments =
        reinterpret_cast<Segment*>(static_cast<char*>(workspace) + aligned(static_cast<size_t>(n) * sizeof(Row)));
    dim3 const block(kThreads);
    // 16 cells a thread, until there are blocks enough for every device.
    uint32_t const whole = (length - 1U) / (kThreads * 16U) + 1U;
    dim3 const histogram_grid(whole < kMaxHistogramBlocks ? whole : kMaxHistogramBlocks, images);
    dim3 const segment_grid((row_segments - 1U) / kSegmentsPerBlock + 1U, images);

    PR_LAUNCH(start_kernel, dim3(images), block, stream, rows, count);
    PR_LAUNCH(histogram_kernel, histogram_grid, block, stream, uncertainty, length, rows, 21U, 0U);
    PR_LAUNCH(choose_bin_kernel, dim3(images), block, stream, rows, 21U);
    PR_LAUNCH(histogram_kernel, histogram_grid, block, stream, uncertainty, length, rows, 10U, 0xFFE00000U);
    PR_LAUNCH(choose_bin_kernel, dim3(images), block, stream, rows, 10U);
    PR_LAUNCH(histogram_kernel, histogram_grid, block, stream, uncertainty, length, rows, 0U, 0xFFFFFC00U);
    PR_LAUNCH(choose_bin_kernel, dim3(images), block, stream, rows, 0U);
    PR_LAUNCH(count_kernel, segment_grid, block, stream, uncertainty, length, rows, segments, row_segments);
    PR_LAUNCH(place_kernel, dim3(images), block, stream, rows, segments, row_segments);
    PR_LAUNCH(write_kernel, segment_grid, block, stream, uncertainty, length, count, rows, segments, row_segments,
              indices);
    return cudaPeekAtLastError();
}

} // namespace pointrend
