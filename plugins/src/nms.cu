// Greedy suppression within groups, exactly. A block serves one group: it collects the candidates, sorts them,
// and goes through them in tiles of 64. Within a tile the pairs that overlap too much are bits of a matrix, from
// which one thread finds who is kept; the kept ones then strike out later candidates. A second kernel places
// every kept box at its rank among those of all groups. Keys differ, so that no result depends on the order in
// which threads run.
#include "nms.h"

#include "box.h"
#include "order_key.h"

namespace pointrend {
namespace {

constexpr uint32_t kThreads = 512;
constexpr uint32_t kRankThreads = 128;
constexpr uint32_t kTile = 64;
constexpr uint32_t kWarp = 32;
constexpr uint32_t kEveryLane = 0xFFFFFFFFU;
constexpr uint32_t kSortedInShared = 2048;
constexpr int32_t kMaxGrid = 65535;      // of the grid's y and z
constexpr int32_t kMaxLength = 1 << 30;  // of a group
constexpr size_t kAlignment = 256;

// A candidate: the order of its score above the order of its index, the lower index being the larger. Two
// candidates never have one key, and none has the key 0: that stands for a candidate struck out.
using Key = unsigned long long;

__device__ __forceinline__ Key key_of(float score, uint32_t index) {
    return static_cast<Key>(order_key(score)) << 32U | static_cast<Key>(~index);
}

__device__ __forceinline__ uint32_t index_of(Key key) { return ~static_cast<uint32_t>(key); }

struct Arrays {
    Box* boxes;       // (n, groups, l), of each group's candidates in order
    Key* keys;        // (n, groups, l), first of its candidates in order, then of its kept boxes
    uint32_t* counts; // (n, groups), of its kept boxes
};

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

__device__ __forceinline__ void larger_first(Key* keys, uint32_t low, uint32_t high, uint32_t count) {
    if (high < count && keys[low] < keys[high]) {
        Key const smaller = keys[low];
        keys[low] = keys[high];
        keys[high] = smaller;
    }
}

// A bitonic sort, descending, by a whole block. Every comparison puts the larger key first, so places past the count
// act as if they had the smallest keys: nothing is ever moved there.
__device__ __forceinline__ void sort(Key* keys, uint32_t count) {
    for (uint32_t half = 1U; half < count; half *= 2U) {
        uint32_t const pairs = (count + 2U * half - 1U) / (2U * half) * half;
        for (uint32_t pair = threadIdx.x; pair < pairs; pair += kThreads) {
            uint32_t const low = 2U * pair - (pair & (half - 1U));
            larger_first(keys, low, low ^ (2U * half - 1U), count);
        }
        __syncthreads();
        for (uint32_t distance = half / 2U; distance > 0U; distance /= 2U) {
            for (uint32_t pair = threadIdx.x; pair < pairs; pair += kThreads) {
                uint32_t const low = 2U * pair - (pair & (distance - 1U));
                larger_first(keys, low, low + distance, count);
            }
            __syncthreads();
        }
    }
}

// The candidates of a group, sorted, with their boxes; their number.
__device__ __forceinline__ uint32_t collect(float const* boxes, float const* scores, uint32_t l, uint32_t first_index,
                                            float threshold, Box* sorted_boxes, Key* keys) {
    __shared__ uint32_t found;
    __shared__ Key in_shared[kSortedInShared];
    if (threadIdx.x == 0U) {
        found = 0U;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < l; i += kThreads) {
        float const score = scores[i];
        if (score > threshold) {
            keys[atomicAdd(&found, 1U)] = key_of(score, first_index + i);
        }
    }
    __syncthreads();
    uint32_t const count = found;
    if (count <= kSortedInShared) {
        for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
            in_shared[i] = keys[i];
        }
        __syncthreads();
        sort(in_shared, count);
        for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
            keys[i] = in_shared[i];
        }
    } else {
        sort(keys, count);
    }
    // A thread reads the keys that it wrote, or those of the sort before its last barrier.
    for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
        sorted_boxes[i] = read_box(boxes + static_cast<size_t>(index_of(keys[i]) - first_index) * 4U);
    }
    __syncthreads();
    return count;
}

// 64 candidates in order, and who of them overlaps whom too much.
struct Tile {
    Box boxes[kTile];
    Key keys[kTile];
    uint32_t alive[kTile / kWarp];
    uint32_t later[kTile][kTile / kWarp]; // bits of the later candidates that each would drop
    unsigned long long kept;
};

// Who of a tile is kept, at most `room`: a kept candidate drops those of its bits. By one thread.
__device__ __forceinline__ unsigned long long keep(Tile const& tile, uint32_t room) {
    unsigned long long alive = static_cast<unsigned long long>(tile.alive[1]) << 32U | tile.alive[0];
    unsigned long long kept = 0U;
    for (; alive != 0U && room > 0U; --room) {
        int const candidate = __ffsll(static_cast<long long>(alive)) - 1;
        unsigned long long const dropped =
            static_cast<unsigned long long>(tile.later[candidate][1]) << 32U | tile.later[candidate][0];
        kept |= 1ULL << candidate;
        alive &= ~(dropped | 1ULL << candidate);
    }
    return kept;
}

// Grid: images by groups.
__global__ void __launch_bounds__(kThreads)
    group_kernel(float const* __restrict__ boxes, float const* __restrict__ scores, Arrays arrays, uint32_t groups,
                 uint32_t l, uint32_t k, NmsThresholds thresholds) {
    __shared__ Tile tile;
    size_t const before = static_cast<size_t>(blockIdx.x) * l;
    Box* const sorted_boxes = arrays.boxes + before;
    Key* const keys = arrays.keys + before;
    uint32_t const count = collect(boxes + before * 4U, scores + before, l, blockIdx.x % groups * l, thresholds.score,
                                   sorted_boxes, keys);
    uint32_t const lane = threadIdx.x % kWarp;
    uint32_t kept = 0U;
    for (uint32_t first = 0U; first < count && kept < k; first += kTile) {
        if (threadIdx.x < kTile) {
            bool const present = first + threadIdx.x < count;
            Key const key = present ? keys[first + threadIdx.x] : 0U;
            tile.keys[threadIdx.x] = key;
            tile.boxes[threadIdx.x] = present ? sorted_boxes[first + threadIdx.x] : Box{};
            uint32_t const alive = __ballot_sync(kEveryLane, key != 0U ? 1 : 0);
            if (lane == 0U) {
                tile.alive[threadIdx.x / kWarp] = alive;
            }
        }
        __syncthreads();
        for (uint32_t pair = threadIdx.x; pair < kTile * kTile; pair += kThreads) {
            uint32_t const row = pair / kTile;
            uint32_t const column = pair % kTile;
            bool const drops = column > row && tile.keys[row] != 0U && tile.keys[column] != 0U &&
                               overlap_above(tile.boxes[row], tile.boxes[column], thresholds.iou);
            uint32_t const bits = __ballot_sync(kEveryLane, drops ? 1 : 0);
            if (lane == 0U) {
                tile.later[row][column / kWarp] = bits;
            }
        }
        __syncthreads();
        if (threadIdx.x == 0U) {
            tile.kept = keep(tile, k - kept);
        }
        __syncthreads();
        unsigned long long const chosen = tile.kept;
        // Places of this tile or before it: the keys there were read.
        if (threadIdx.x < kTile && (chosen >> threadIdx.x & 1U) != 0U) {
            uint32_t const place = static_cast<uint32_t>(__popcll(chosen & ((1ULL << threadIdx.x) - 1U)));
            keys[kept + place] = tile.keys[threadIdx.x];
        }
        kept += static_cast<uint32_t>(__popcll(chosen));
        if (kept < k) {
            for (uint32_t i = first + kTile + threadIdx.x; i < count; i += kThreads) {
                if (keys[i] == 0U) {
                    continue;
                }
                Box const box = sorted_boxes[i];
                for (unsigned long long left = chosen; left != 0U; left &= left - 1U) {
                    int const candidate = __ffsll(static_cast<long long>(left)) - 1;
                    if (overlap_above(tile.boxes[candidate], box, thresholds.iou)) {
                        keys[i] = 0U;
                        break;
                    }
                }
            }
        }
        __syncthreads();
    }
    if (threadIdx.x == 0U) {
        arrays.counts[blockIdx.x] = kept;
    }
}

// Each kept box to its rank: as many as are above it in all groups of its picture. Grid: places, groups, images.
__global__ void __launch_bounds__(kRankThreads)
    rank_kernel(Arrays arrays, uint32_t groups, uint32_t l, uint32_t k, int64_t* __restrict__ indices,
                int64_t* __restrict__ count) {
    uint32_t const place = blockIdx.x * kRankThreads + threadIdx.x;
    if (place >= k) {
        return;
    }
    Key const* const keys = arrays.keys + static_cast<size_t>(blockIdx.z) * groups * l;
    uint32_t const* const counts = arrays.counts + static_cast<size_t>(blockIdx.z) * groups;
    indices += static_cast<size_t>(blockIdx.z) * k;
    if (blockIdx.y == 0U) { // the places past the count
        uint32_t total = 0U;
        for (uint32_t group = 0U; group < groups; ++group) {
            total += counts[group];
        }
        if (place >= total) {
            indices[place] = 0;
        }
        if (place == 0U) {
            count[blockIdx.z] = total < k ? total : k;
        }
    }
    if (place >= counts[blockIdx.y]) {
        return;
    }
    Key const mine = keys[static_cast<size_t>(blockIdx.y) * l + place];
    uint32_t rank = place;
    for (uint32_t group = 0U; group < groups && rank < k; ++group) {
        uint32_t above = 0U;
        uint32_t end = group != blockIdx.y ? counts[group] : 0U;
        Key const* const theirs = keys + static_cast<size_t>(group) * l;
        while (above < end) {
            uint32_t const middle = (above + end) / 2U;
            if (theirs[middle] > mine) {
                above = middle + 1U;
            } else {
                end = middle;
            }
        }
        rank += above;
    }
    if (rank < k) {
        indices[rank] = index_of(mine);
    }
}

} // namespace

char const* wrong_with(NmsThresholds thresholds) {
    if (!(thresholds.iou >= 0.0F && thresholds.iou <= 1.0F)) {
        return "iou_threshold is 0 to 1";
    }
    return thresholds.score == thresholds.score ? nullptr : "score_threshold is a number";
}

size_t nms_workspace(int32_t n, int32_t groups, int32_t l) {
    if (n < 1 || n > kMaxGrid || groups < 1 || groups > kMaxGrid || l < 1 || l > kMaxLength) {
        return 0U;
    }
    if (static_cast<int64_t>(groups) * l > INT32_MAX || static_cast<int64_t>(n) * groups > INT32_MAX) {
        return 0U;
    }
    size_t const rows = static_cast<size_t>(n) * static_cast<size_t>(groups);
    size_t const cells = rows * static_cast<size_t>(l);
    return aligned(cells * sizeof(Box)) + aligned(cells * sizeof(Key)) + aligned(rows * sizeof(uint32_t));
}

cudaError_t nms(float const* boxes, float const* scores, int64_t* indices, int64_t* count, NmsShape shape,
                NmsThresholds thresholds, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
    size_t const needed = nms_workspace(shape.n, shape.groups, shape.l);
    bool const misaligned = reinterpret_cast<uintptr_t>(workspace) % kAlignment != 0U;
    if (needed == 0U || shape.k < 1 || shape.k > kMaxKept || wrong_with(thresholds) != nullptr ||
        workspace_bytes < needed || misaligned || boxes == nullptr || scores == nullptr || indices == nullptr ||
        count == nullptr || workspace == nullptr) {
        return cudaErrorInvalidValue;
    }
    uint32_t const images = static_cast<uint32_t>(shape.n);
    uint32_t const groups = static_cast<uint32_t>(shape.groups);
    uint32_t const l = static_cast<uint32_t>(shape.l);
    uint32_t const k = static_cast<uint32_t>(shape.k);
    size_t const cells = static_cast<size_t>(images) * groups * l;
    char* const start = static_cast<char*>(workspace);
    char* const keys = start + aligned(cells * sizeof(Box));
    char* const counts = keys + aligned(cells * sizeof(Key));
    Arrays const arrays{reinterpret_cast<Box*>(start), reinterpret_cast<Key*>(keys),
                        reinterpret_cast<uint32_t*>(counts)};
    dim3 const places((k - 1U) / kRankThreads + 1U, groups, images);
    PR_LAUNCH(group_kernel, dim3(images * groups), dim3(kThreads), stream, boxes, scores, arrays, groups, l, k,
              thresholds);
    PR_LAUNCH(rank_kernel, places, dim3(kRankThreads), stream, arrays, groups, l, k, indices, count);
    return cudaPeekAtLastError();
}

} // namespace pointrend
