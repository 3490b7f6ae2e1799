// Launchers of the pooling of boxes: no TensorRT here.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

namespace pointrend {

constexpr int32_t kMaxRoiLevels = 4;
constexpr int32_t kMaxRoiSide = 64;
constexpr int32_t kMaxRoiSampling = 16;
constexpr int32_t kMaxRoiCells = 11000; // height and width of a map together

// `sampling` samples a bin along each axis; 0 for a number that grows with the box. r boxes a picture, on `levels` maps (n, c, h[i], w[i]) of stride 2^(first_level + i) -> (n * r, c, side, side).
struct RoiAlignShape {
    int32_t n;
    int32_t r;
    int32_t c;
    int32_t h[kMaxRoiLevels];
    int32_t w[kMaxRoiLevels];
    int32_t first_level;
    int32_t levels;
    int32_t side;
    int32_t sampling;
};

// Returns why a shape is refused, nullptr where it is valid.
char const* wrong_with(RoiAlignShape const& shape);

// boxes (n, r, 4) in pixels of the network input, features[i] of level first_level + i. Aligned, float32 sums. A
// box with a NaN or infinite corner gives zeros, and so does one without area where `sampling` is 0.
// cudaErrorInvalidValue where something is wrong with the shape.
cudaError_t roi_align(float const* boxes, float const* const* features, float* out, RoiAlignShape const& shape,
                      cudaStream_t stream);
cudaError_t roi_align(float const* boxes, __half const* const* features, __half* out, RoiAlignShape const& shape,
                      cudaStream_t stream);

} // namespace pointrend
