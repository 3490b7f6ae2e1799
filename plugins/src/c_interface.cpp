#include "pointrend_plugins.h"

#include "nms.h"
#include "refine.h"
#include "roi_align.h"
#include "sample.h"
#include "sample_rois.h"
#include "uncertain.h"
#include "upsample.h"

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

namespace {

template <class T>
cudaError_t roi_align(float const* boxes, void const* const* features, void* out,
                      pointrend::RoiAlignShape const& shape, cudaStream_t stream) {
    T const* typed[pointrend::kMaxRoiLevels] = {};
    for (int32_t i = 0; i < shape.levels; ++i) {
        typed[i] = static_cast<T const*>(features[i]);
    }
    return pointrend::roi_align(boxes, typed, static_cast<T*>(out), shape, stream);
}

template <class T>
cudaError_t sample_rois(void const* table, void const* cells, void const* bias, float const* boxes, float const* points,
                        void* out, pointrend::SampleRoisShape const& shape, cudaStream_t stream) {
    return pointrend::sample_rois(static_cast<T const*>(table), static_cast<T const*>(cells),
                                  static_cast<T const*>(bias), boxes, points, static_cast<T*>(out), shape, stream);
}

bool is_float(int type) { return type == POINTREND_FLOAT32 || type == POINTREND_FLOAT16; }

} // namespace

extern "C" {

int pointrend_sample(void const* features, int feature_type, float const* points, void* out, int32_t n, int32_t c,
                     int32_t h, int32_t w, int32_t p, void* stream) {
    pointrend::SampleShape const shape{n, c, h, w, p};
    auto const on = static_cast<cudaStream_t>(stream);
    switch (feature_type) {
    case POINTREND_FLOAT32:
        return pointrend::sample(static_cast<float const*>(features), points, static_cast<float*>(out), shape, on);
    case POINTREND_FLOAT16:
        return pointrend::sample(static_cast<__half const*>(features), points, static_cast<__half*>(out), shape, on);
    case POINTREND_FLOAT16_HWC8:
        return pointrend::sample_channels_last(static_cast<__half const*>(features), points, static_cast<__half*>(out),
                                               shape, on);
    default:
        return cudaErrorInvalidValue;
    }
}

int pointrend_sample_cells(void const* fine, int fine_type, int32_t fine_c, int32_t fine_h, int32_t fine_w,
                           void const* coarse, int coarse_type, int32_t coarse_c, int32_t coarse_h, int32_t coarse_w,
                           int64_t const* indices, int32_t grid_height, int32_t grid_width, void* out, int32_t n,
                           int32_t k, void* stream) {
    bool const half = fine_type == POINTREND_FLOAT16 || fine_type == POINTREND_FLOAT16_HWC8;
    bool const same = half ? coarse_type == POINTREND_FLOAT16 || coarse_type == POINTREND_FLOAT16_HWC8
                           : fine_type == POINTREND_FLOAT32 && coarse_type == POINTREND_FLOAT32;
    if (!same) {
        return cudaErrorInvalidValue;
    }
    return pointrend::sample_cells({fine, fine_c, fine_h, fine_w, fine_type == POINTREND_FLOAT16_HWC8},
                                   {coarse, coarse_c, coarse_h, coarse_w, coarse_type == POINTREND_FLOAT16_HWC8},
                                   indices, out, half, {n, grid_height, grid_width, k},
                                   static_cast<cudaStream_t>(stream));
}

int pointrend_sample_rois(void const* table, void const* cells, void const* bias, int feature_type, float const* boxes,
                          float const* points, void* out, int32_t n, int32_t h, int32_t w, int32_t c, int32_t r,
                          int32_t side_h, int32_t side_w, int32_t d, int32_t p, void* stream) {
    pointrend::SampleRoisShape const shape{n, h, w, c, r, side_h, side_w, d, p};
    auto const on = static_cast<cudaStream_t>(stream);
    switch (feature_type) {
    case POINTREND_FLOAT32:
        return sample_rois<float>(table, cells, bias, boxes, points, out, shape, on);
    case POINTREND_FLOAT16:
        return sample_rois<__half>(table, cells, bias, boxes, points, out, shape, on);
    default:
        return cudaErrorInvalidValue;
    }
}

size_t pointrend_uncertain_workspace(int32_t n, int32_t l) { return pointrend::uncertain_workspace(n, l); }

int pointrend_uncertain(float const* uncertainty, int64_t* indices, int32_t n, int32_t l, int32_t k, void* workspace,
                        size_t workspace_bytes, void* stream) {
    return pointrend::uncertain(uncertainty, indices, n, l, k, workspace, workspace_bytes,
                                static_cast<cudaStream_t>(stream));
}

int pointrend_roi_align(float const* boxes, void const* const* features, int feature_type, void* out, int32_t n,
                        int32_t r, int32_t c, int32_t const* heights, int32_t const* widths, int32_t first_level,
                        int32_t levels, int32_t side, int32_t sampling_ratio, void* stream) {
    pointrend::RoiAlignShape shape{n, r, c, {}, {}, first_level, levels, side, sampling_ratio};
    if (levels < 1 || levels > pointrend::kMaxRoiLevels || features == nullptr || heights == nullptr ||
        widths == nullptr) {
        return cudaErrorInvalidValue;
    }
    for (int32_t i = 0; i < levels; ++i) {
        shape.h[i] = heights[i];
        shape.w[i] = widths[i];
    }
    auto const on = static_cast<cudaStream_t>(stream);
    switch (feature_type) {
    case POINTREND_FLOAT32:
        return roi_align<float>(boxes, features, out, shape, on);
    case POINTREND_FLOAT16:
        return roi_align<__half>(boxes, features, out, shape, on);
    default:
        return cudaErrorInvalidValue;
    }
}

size_t pointrend_nms_workspace(int32_t n, int32_t groups, int32_t l) {
    return pointrend::nms_workspace(n, groups, l);
}

int pointrend_nms(float const* boxes, float const* scores, int64_t* indices, int64_t* count, int32_t n,
                  int32_t groups, int32_t l, int32_t k, float iou_threshold, float score_threshold, void* workspace,
                  size_t workspace_bytes, void* stream) {
    return pointrend::nms(boxes, scores, indices, count, {n, groups, l, k}, {iou_threshold, score_threshold},
                          workspace, workspace_bytes, static_cast<cudaStream_t>(stream));
}

int pointrend_upsample_two_best(void const* logits, int logits_type, float* uncertainty, int32_t* labels, int32_t n,
                                int32_t c, int32_t h, int32_t w, int32_t scale, void* stream) {
    pointrend::UpsampleShape const shape{n, c, h, w, scale};
    auto const on = static_cast<cudaStream_t>(stream);
    switch (logits_type) {
    case POINTREND_FLOAT32:
        return pointrend::upsample_two_best(static_cast<float const*>(logits), uncertainty, labels, shape, on);
    case POINTREND_FLOAT16:
        return pointrend::upsample_two_best(static_cast<__half const*>(logits), uncertainty, labels, shape, on);
    default:
        return cudaErrorInvalidValue;
    }
}

int pointrend_refine_logits(void const* logits, int logits_type, int64_t const* indices, void const* point_logits,
                            int point_type, float* out, int32_t n, int32_t c, int32_t h, int32_t w, int32_t scale,
                            int32_t k, void* stream) {
    if (!is_float(logits_type) || !is_float(point_type)) {
        return cudaErrorInvalidValue;
    }
    return pointrend::refine_logits({logits, logits_type == POINTREND_FLOAT16}, indices,
                                    {point_logits, point_type == POINTREND_FLOAT16}, out, {n, c, h, w, scale}, k,
                                    static_cast<cudaStream_t>(stream));
}

int pointrend_refine_labels(int32_t const* labels, int64_t const* indices, void const* point_logits, int point_type,
                            int32_t* out, int32_t n, int32_t c, int32_t l, int32_t k, void* stream) {
    if (!is_float(point_type)) {
        return cudaErrorInvalidValue;
    }
    return pointrend::refine_labels(labels, indices, {point_logits, point_type == POINTREND_FLOAT16}, out, n, c, l, k,
                                    static_cast<cudaStream_t>(stream));
}

char const* pointrend_error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

} // extern "C"
