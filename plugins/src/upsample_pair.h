// Two neighbouring cells of an upsampled row or column, which lie between the same two cells of the source.
#pragma once

#include "host_device.h"

#include <stdint.h>

namespace pointrend {

// `weight[i]` is that of the high cell in output cell `first` + i; `inside[i]` is false beside the map.
struct UpsamplePair {
    int32_t first;
    int32_t low_cell;
    int32_t high_cell;
    float weight[2];
    bool inside[2];
};

// Number of pairs along an axis of `size` source cells. Twice as large, the cells 2 i + 1 and 2 i + 2 lie between
// the centres of the same two cells, so the first and the last pair have one cell beside the map; at 4, 8 and 16
// pairs begin at even cells.
PR_HOST_DEVICE int32_t upsample_pairs(int32_t size, int32_t scale) { return scale == 2 ? size + 1 : size * (scale / 2); }

// The positions are torch's (align_corners=False): (o + 0.5) / scale - 0.5, not below 0; the scales are powers of
// two, so nothing is rounded. Past the last centre both cells are the last.
PR_HOST_DEVICE UpsamplePair upsample_pair(int32_t number, int32_t size, int32_t scale) {
    UpsamplePair pair;
    pair.first = 2 * number - (scale == 2 ? 1 : 0);
    float position[2];
    for (int32_t i = 0; i < 2; ++i) {
        int32_t const cell = pair.first + i;
        float const at = (static_cast<float>(cell) + 0.5F) / static_cast<float>(scale) - 0.5F;
        position[i] = at > 0.0F ? at : 0.0F;
        pair.inside[i] = cell >= 0 && cell < size * scale;
    }
    // Of the second cell: the first may be beside the map.
    int32_t const low = static_cast<int32_t>(position[1]);
    pair.low_cell = low;
    pair.high_cell = low + 1 < size ? low + 1 : size - 1;
    for (int32_t i = 0; i < 2; ++i) {
        pair.weight[i] = position[i] - static_cast<float>(low);
    }
    return pair;
}

} // namespace pointrend
