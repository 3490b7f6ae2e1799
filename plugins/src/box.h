// Boxes and their overlap, in the float32 arithmetic of the reference.
#pragma once

#include "host_device.h"

namespace pointrend {

// Corners in pixels of the network input.
struct alignas(16) Box {
    float x1;
    float y1;
    float x2;
    float y2;
};

// Reads a box from an address that need only be aligned as a float.
PR_HOST_DEVICE Box read_box(float const* at) { return Box{at[0], at[1], at[2], at[3]}; }

PR_HOST_DEVICE float area(Box const& box) { return product(box.x2 - box.x1, box.y2 - box.y1); }

// Whether the IoU is strictly above the threshold, which is not negative. Boxes that share nothing have an IoU
// of 0, or NaN where both are empty: neither is above. A NaN among the corners makes it NaN too.
PR_HOST_DEVICE bool overlap_above(Box const& a, Box const& b, float threshold) {
    float const width = (a.x2 < b.x2 ? a.x2 : b.x2) - (a.x1 > b.x1 ? a.x1 : b.x1);
    float const height = (a.y2 < b.y2 ? a.y2 : b.y2) - (a.y1 > b.y1 ? a.y1 : b.y1);
    if (!(width > 0.0F && height > 0.0F)) {
        return false;
    }
    float const shared = product(width, height);
    return shared / (area(a) + area(b) - shared) > threshold;
}

} // namespace pointrend
