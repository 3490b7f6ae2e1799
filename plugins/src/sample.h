// Launchers of the sampler: no TensorRT here.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

namespace pointrend {

// Features (n, c, h, w) and the number of points p that each of the n maps is sampled at.
struct SampleShape {
    int32_t n;
    int32_t c;
    int32_t h;
    int32_t w;
    int32_t p;
};

// features (n, c, h, w), points (n, p, 2) (x, y) in [0, 1] -> out (n, c, p). Bilinear, cell centres at
// (i + 0.5) / size, zeros outside, float32 sums. cudaErrorInvalidValue for a shape without cells,
// h * w >= 2^31, or n or c / 16 above 65535.
cudaError_t sample(float const* features, float const* points, float* out, SampleShape shape, cudaStream_t stream);
cudaError_t sample(__half const* features, float const* points, __half* out, SampleShape shape, cudaStream_t stream);

// The same of features with the channels last, (n, h, w, c rounded up to a multiple of 8), 16-byte aligned: what
// TensorRT calls HWC8. The padding channels may have any value.
cudaError_t sample_channels_last(__half const* features, float const* points, __half* out, SampleShape shape,
                                 cudaStream_t stream);

// A map to be sampled, (n, c, h, w): channels last as above, or first.
struct MapToSample {
    void const* data;
    int32_t c;
    int32_t h;
    int32_t w;
    bool channels_last;
};

// Cells of a grid that k of are sampled in each of n images.
struct CellsShape {
    int32_t n;
    int32_t grid_height;
    int32_t grid_width;
    int32_t k;
};

// Channels of what sample_cells writes: a multiple of eight, which products of matrices want.
inline int32_t sampled_channels(int32_t fine, int32_t coarse) noexcept { return (fine + coarse + 7) / 8 * 8; }

// Both maps sampled as above at the centres of cells of a grid over them, given as flat indices (n, k) -> out (n,
// sampled_channels, k): the fine map's channels, the coarse one's, zeros. Maps and output are half or float. An index
// beside the grid samples zeros. cudaErrorInvalidValue as above, for a grid of no cells or of 2^31 or more, and for
// float maps with the channels last.
cudaError_t sample_cells(MapToSample const& fine, MapToSample const& coarse, int64_t const* indices, void* out,
                         bool half, CellsShape const& shape, cudaStream_t stream);

} // namespace pointrend
