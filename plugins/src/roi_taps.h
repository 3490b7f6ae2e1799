// Which level of a pyramid a box is pooled from, and where its samples lie along one axis of that level.
#pragma once

#include "box.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace pointrend {

constexpr int32_t kMaxLevel = 11; // its stride is 2048

// More cells than any map has. Within it two samples of a box never change places by rounding.
constexpr float kMaxExtent = 1048576.0F;

// The square root of a box's area in units of 224 pixels: what its level follows from.
PR_HOST_DEVICE float canonical_size(Box const& box) { return sqrtf(area(box)) / 224.0F + 1e-8F; }

// The smallest canonical size of boxes that belong to `level` or above, 1 <= level <= kMaxLevel. It stands a
// few floats below 2^(level - 4), where 4 + log2(size) in float32 still rounds up to the level. The numbers
// are those of a correctly rounded log2; that of the device may be one float off, so none is taken here.
inline float smallest_of_level(int32_t level) {
    constexpr uint8_t kFloatsBelow[kMaxLevel + 1] = {2, 1, 1, 2, 1, 3, 3, 4, 4, 8, 8, 8};
    float const power = ldexpf(1.0F, level - 4);
    uint32_t bits;
    memcpy(&bits, &power, sizeof bits);
    bits -= kFloatsBelow[level];
    float smallest;
    memcpy(&smallest, &bits, sizeof smallest);
    return smallest;
}

// A box along one axis of a map, in cells from the first cell's centre. `count` samples a bin, 0 where the
// box is not finite, or longer than kMaxExtent, or ends before it starts.
struct Axis {
    float start;
    float bin;
    int32_t count;
    int32_t cells;
};

// `sampling` samples a bin or, where that is 0, as many as the bin has cells, none without an extent.
PR_HOST_DEVICE Axis axis_of(float low, float high, float scale, int32_t side, int32_t sampling, int32_t cells) {
    float const start = product(low, scale) - 0.5F;
    float const extent = product(high, scale) - 0.5F - start;
    float const bin = extent / static_cast<float>(side);
    bool const some = extent >= 0.0F && extent <= kMaxExtent; // also false for NaN
    int32_t const count = sampling > 0 ? sampling : static_cast<int32_t>(some ? ceilf(bin) : 0.0F);
    return Axis{start, bin, some ? count : 0, cells};
}

// Where a sample lies. It does not fall from one sample to the next.
PR_HOST_DEVICE float position(Axis const& axis, int32_t bin, int32_t sample) {
    float const within = product(static_cast<float>(sample) + 0.5F, axis.bin) / static_cast<float>(axis.count);
    return axis.start + product(static_cast<float>(bin), axis.bin) + within;
}

// The samples of a bin that count: those from one cell before the map to one cell after it.
struct Samples {
    int32_t first;
    int32_t end;
};

PR_HOST_DEVICE Samples samples_of(Axis const& axis, int32_t bin) {
    Samples range{0, 0};
    int32_t above = axis.count;
    while (range.first < above) { // the first at -1 or above
        int32_t const middle = range.first + (above - range.first) / 2;
        if (position(axis, bin, middle) >= -1.0F) {
            above = middle;
        } else {
            range.first = middle + 1;
        }
    }
    range.end = range.first;
    above = axis.count;
    while (range.end < above) { // the first beyond the last cell by more than one
        int32_t const middle = range.end + (above - range.end) / 2;
        if (position(axis, bin, middle) > static_cast<float>(axis.cells)) {
            above = middle;
        } else {
            range.end = middle + 1;
        }
    }
    return range;
}

// The cell below a sample, of which `share` goes to the cell above it, the last cell where there is none.
struct Tap {
    int32_t cell;
    float share;
};

PR_HOST_DEVICE Tap tap_of(Axis const& axis, int32_t bin, int32_t sample) {
    float const last = static_cast<float>(axis.cells - 1);
    float const at = position(axis, bin, sample);
    float const inside = at < 0.0F ? 0.0F : at > last ? last : at;
    float const low = floorf(inside);
    return Tap{static_cast<int32_t>(low), inside - low};
}

// The cells that a bin reads. Over all bins of an axis their lengths sum to cells + 2 * side at the most:
// a bin begins one cell before the end of the one before it, at the earliest.
struct Cells {
    int32_t first;
    int32_t length;
};

PR_HOST_DEVICE Cells cells_of(Axis const& axis, int32_t bin, Samples samples) {
    if (samples.first >= samples.end) {
        return Cells{0, 0};
    }
    int32_t const first = tap_of(axis, bin, samples.first).cell;
    int32_t const last = tap_of(axis, bin, samples.end - 1).cell + 1;
    return Cells{first, (last < axis.cells ? last : axis.cells - 1) - first + 1};
}

// The weight of each of those cells in the mean over the bin's samples, added to `weights`.
PR_HOST_DEVICE void add_weights(Axis const& axis, int32_t bin, Samples samples, Cells cells, float* weights) {
    float const each = 1.0F / static_cast<float>(axis.count);
    for (int32_t sample = samples.first; sample < samples.end; ++sample) {
        Tap const tap = tap_of(axis, bin, sample);
        float const share = product(tap.share, each);
        int32_t const low = tap.cell - cells.first;
        int32_t const high = low + 1 < cells.length ? low + 1 : cells.length - 1;
        weights[low] += each - share;
        weights[high] += share;
    }
}

} // namespace pointrend
