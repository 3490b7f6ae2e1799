// Launchers that put recomputed points into what was upsampled: no TensorRT here.
#pragma once

#include "upsample.h"

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

namespace pointrend {

// Logits, float or half.
struct Logits {
    void const* data;
    bool half;
};

// Logits (n, c, h, w), upsampled as in upsample.h, with point logits (n, c, k) put in at flat indices (n, k) of the
// result's h * w * scale^2 cells -> (n, c, h * scale, w * scale). No index is there twice; one beside the map is left
// out. cudaErrorInvalidValue for what upsample.h refuses, k < 1, n * c above 65535, or k >= 2^31 / c.
cudaError_t refine_logits(Logits logits, int64_t const* indices, Logits point_logits, float* out, UpsampleShape shape,
                          int32_t k, cudaStream_t stream);

// Labels (n, l) and the class of the highest of point logits (n, c, k), ties to the lower class, put in at flat indices
// (n, k) -> (n, l). NaN is below every number. `out` is another buffer than `labels`. No index is there twice; one
// beside the map is left out. cudaErrorInvalidValue for sizes below 1 or n above 65535.
cudaError_t refine_labels(int32_t const* labels, int64_t const* indices, Logits point_logits, int32_t* out, int32_t n,
                          int32_t c, int32_t l, int32_t k, cudaStream_t stream);

} // namespace pointrend
