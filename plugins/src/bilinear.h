// Where a point of [0, 1] x [0, 1] falls among the cells of a map, and with what weights.
#pragma once

#include "host_device.h"

#include <math.h>
#include <stdint.h>

namespace pointrend {

// The two cells that a coordinate lies between. A weight is 0 and its cell 0 where the cell is outside.
struct Between {
    int32_t low_cell;
    int32_t high_cell;
    float low_weight;
    float high_weight;
    bool low_inside;
    bool high_inside;
};

// x in [0, 1] of a map of `size` cells, their centres at (i + 0.5) / size. The arithmetic is torch's,
// ((g + 1) * size - 1) / 2 with g = 2 x - 1, so that results agree to the last bits. A coordinate that
// is NaN, infinite or far outside lies between two cells outside.
PR_HOST_DEVICE Between between(float x, int32_t size) {
    float const grid = 2.0F * x - 1.0F;
    float const position = ((grid + 1.0F) * static_cast<float>(size) - 1.0F) / 2.0F;
    Between b{0, 0, 0.0F, 0.0F, false, false};
    // Also false for NaN. Beyond these limits both cells are outside and the cast below may overflow.
    if (!(position > -1.0F && position < static_cast<float>(size))) {
        return b;
    }
    float const floored = floorf(position);
    int32_t const low = static_cast<int32_t>(floored);
    b.low_inside = low >= 0 && low < size;
    b.high_inside = low + 1 < size;
    b.low_cell = b.low_inside ? low : 0;
    b.high_cell = b.high_inside ? low + 1 : 0;
    b.low_weight = b.low_inside ? floored + 1.0F - position : 0.0F;
    b.high_weight = b.high_inside ? position - floored : 0.0F;
    return b;
}

// Centre of a cell of a grid of `size` cells, in [0, 1]. The arithmetic is the graph's, with a product of its own.
PR_HOST_DEVICE float cell_centre(int32_t cell, int32_t size) {
    float const step = 1.0F / static_cast<float>(size);
    return product(static_cast<float>(cell), step) + step / 2.0F;
}

// The four cells around a point, as offsets within a plane, and which of them are inside.
struct Corners {
    int32_t offset[4];
    float weight[4];
    bool inside[4];
};

// Requires height * width < 2^31.
PR_HOST_DEVICE Corners corners(float x, float y, int32_t height, int32_t width) {
    Between const across = between(x, width);
    Between const down = between(y, height);
    int32_t const upper = down.low_cell * width;
    int32_t const lower = down.high_cell * width;
    Corners c;
    c.offset[0] = upper + across.low_cell;
    c.offset[1] = upper + across.high_cell;
    c.offset[2] = lower + across.low_cell;
    c.offset[3] = lower + across.high_cell;
    c.weight[0] = across.low_weight * down.low_weight;
    c.weight[1] = across.high_weight * down.low_weight;
    c.weight[2] = across.low_weight * down.high_weight;
    c.weight[3] = across.high_weight * down.high_weight;
    c.inside[0] = across.low_inside && down.low_inside;
    c.inside[1] = across.high_inside && down.low_inside;
    c.inside[2] = across.low_inside && down.high_inside;
    c.inside[3] = across.high_inside && down.high_inside;
    return c;
}

} // namespace pointrend
