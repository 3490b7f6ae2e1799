// Launchers of the ops that upsample logits without writing the upsampled logits of all classes: no TensorRT here.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

namespace pointrend {

constexpr int32_t kMaxUpsampleScale = 16;

// Logits (n, c, h, w) and how much larger the result is along each axis: 2, 4, 8 or 16.
struct UpsampleShape {
    int32_t n;
    int32_t c;
    int32_t h;
    int32_t w;
    int32_t scale;
};

inline bool is_upsample_scale(int32_t scale) noexcept {
    return scale >= 2 && scale <= kMaxUpsampleScale && (scale & (scale - 1)) == 0;
}

// Logits (n, c, h, w), upsampled bilinearly by `scale` (align_corners=False, edges clamped), -> for each of the
// h * w * scale^2 cells the second highest logit minus the highest (n, cells) and, unless `labels` is nullptr, the
// class of the highest (n, cells); ties go to the lower class. Sums are float32. NaN is below every number.
// cudaErrorInvalidValue for c below 2, a scale that is none, a shape without cells, h * w * scale^2 >= 2^31,
// or n above 65535.
cudaError_t upsample_two_best(float const* logits, float* uncertainty, int32_t* labels, UpsampleShape shape,
                              cudaStream_t stream);
cudaError_t upsample_two_best(__half const* logits, float* uncertainty, int32_t* labels, UpsampleShape shape,
                              cudaStream_t stream);

// One class a map: logits (n, 1, h, w) -> the upsampled logits (n, cells).
cudaError_t upsample(float const* logits, float* upsampled, UpsampleShape shape, cudaStream_t stream);
cudaError_t upsample(__half const* logits, float* upsampled, UpsampleShape shape, cudaStream_t stream);

} // namespace pointrend
