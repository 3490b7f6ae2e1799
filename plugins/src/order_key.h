// Floats as unsigned integers of the same order, for a radix select.
#pragma once

#include "host_device.h"

#include <stdint.h>
#include <string.h>

namespace pointrend {

// Equal floats have equal keys (-0 and +0 too), a larger float has a larger key, and every NaN has the
// key 0, below that of -infinity.
PR_HOST_DEVICE uint32_t order_key(float value) {
    uint32_t bits;
#if defined(__CUDA_ARCH__)
    bits = __float_as_uint(value);
#else
    memcpy(&bits, &value, sizeof bits);
#endif
    uint32_t const magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) {
        return 0U;
    }
    if (magnitude == 0U) {
        return 0x80000000U;
    }
    return bits == magnitude ? bits | 0x80000000U : ~bits;
}

} // namespace pointrend
