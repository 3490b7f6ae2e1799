// Launchers of the RoIs' first layer: no TensorRT here.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

namespace pointrend {

// A map (n, h, w, c) of each of n pictures; r RoIs, r / n of each picture in turn, with cells (side_h, side_w, d) of
// their own and p points each.
struct SampleRoisShape {
    int32_t n;
    int32_t h;
    int32_t w;
    int32_t c;
    int32_t r;
    int32_t side_h;
    int32_t side_w;
    int32_t d;
    int32_t p;
};

// table (n, h, w, c), cells (r, side_h, side_w, d), bias (c), boxes (r, 4) (x1, y1, x2, y2) in [0, 1] of the map, points
// (r, p, 2) (x, y) in [0, 1] of the box -> out (r, p, d): the RoI's cells sampled at the point, and in the first c
// channels max(0, that + bias + the table sampled where the point lies on the map). Both bilinear, cell centres at
// (i + 0.5) / size, zeros outside, float32 sums.
// cudaErrorInvalidValue unless c <= d, n divides r, h * w and side_h * side_w are below 2^31, and r times the blocks of
// 32 points of one RoI is below 2^31.
cudaError_t sample_rois(float const* table, float const* cells, float const* bias, float const* boxes,
                        float const* points, float* out, SampleRoisShape shape, cudaStream_t stream);
cudaError_t sample_rois(__half const* table, __half const* cells, __half const* bias, float const* boxes,
                        float const* points, __half* out, SampleRoisShape shape, cudaStream_t stream);

} // namespace pointrend
