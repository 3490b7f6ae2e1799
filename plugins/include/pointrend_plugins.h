/* C interface to the kernels: device pointers and a CUDA stream, no TensorRT, no CUDA header needed.
 *
 * Every function only enqueues kernels: it allocates nothing, waits for nothing, and can be captured in
 * a CUDA graph. The result is a cudaError_t as an int, 0 for success; an argument outside its range is
 * cudaErrorInvalidValue (1) and nothing is launched.
 */
#ifndef POINTREND_PLUGINS_H
#define POINTREND_PLUGINS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define POINTREND_API __attribute__((visibility("default")))
#else
#define POINTREND_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Types of feature maps (n, c, h, w). The last is float16 with the channels last, (n, h, w, c rounded up to a
 * multiple of 8), 16-byte aligned: of the features of pointrend_sample and
 * pointrend_sample_cells only. */
enum { POINTREND_FLOAT32 = 0, POINTREND_FLOAT16 = 1, POINTREND_FLOAT16_HWC8 = 2 };

/* Bilinear samples of features (n, c, h, w) at points (n, p, 2), float32 (x, y) in [0, 1] of the map,
 * cell centres at (i + 0.5) / size, zeros outside -> out (n, c, p), float32 or float16 as the
 * features. Sums are float32. h * w < 2^31, n <= 65535. Pointers need the alignment of their element only, but
 * for those of POINTREND_FLOAT16_HWC8. */
POINTREND_API int pointrend_sample(void const* features, int feature_type, float const* points, void* out,
                                   int32_t n, int32_t c, int32_t h, int32_t w, int32_t p, void* stream);

/* Two maps sampled in the same way, features (n, fine_c, fine_h, fine_w) and logits (n, coarse_c, coarse_h, coarse_w),
 * at the centres of cells of a grid over them, given as flat indices (n, k) -> out (n, fine_c + coarse_c rounded up to a
 * multiple of 8, k): the first map's channels, the second's, zeros. Both are float32, or both float16, each in either
 * layout. An index beside the grid samples zeros. grid_height * grid_width < 2^31. */
POINTREND_API int pointrend_sample_cells(void const* fine, int fine_type, int32_t fine_c, int32_t fine_h,
                                         int32_t fine_w, void const* coarse, int coarse_type, int32_t coarse_c,
                                         int32_t coarse_h, int32_t coarse_w, int64_t const* indices,
                                         int32_t grid_height, int32_t grid_width, void* out, int32_t n, int32_t k,
                                         void* stream);

/* The first layer of a point head at points of RoIs, r / n of each of n pictures in turn: cells (r, side_h, side_w, d)
 * of each RoI sampled at points (r, p, 2), float32 (x, y) in [0, 1] of the box -> out (r, p, d), with max(0, that + bias
 * + a sample of table (n, h, w, c)) in the first c channels, where boxes (r, 4), float32 (x1, y1, x2, y2) in [0, 1] of the
 * map, say where the point lies on it. table, cells, bias (c) and out are all float32 or all float16. Sampling is that of
 * pointrend_sample. c <= d <= 33554431, n divides r, h * w and side_h * side_w < 2^31, r * ceil(p / 32) < 2^31. Pointers
 * need the alignment of their element only; it is faster where they are 16-byte aligned and 16 bytes divide a cell. */
POINTREND_API int pointrend_sample_rois(void const* table, void const* cells, void const* bias, int feature_type,
                                        float const* boxes, float const* points, void* out, int32_t n, int32_t h,
                                        int32_t w, int32_t c, int32_t r, int32_t side_h, int32_t side_w, int32_t d,
                                        int32_t p, void* stream);

/* Bytes of workspace of pointrend_uncertain, whatever k is; 0 for arguments outside their range. */
POINTREND_API size_t pointrend_uncertain_workspace(int32_t n, int32_t l);

/* The k highest of each row of uncertainty (n, l) float32 -> flat indices (n, k) int64 in ascending order
 * of index. Exact and deterministic: ties go to the lower index, -0 equals +0, NaN stands below
 * -infinity. 1 <= k <= l, n <= 65535. The workspace is 256-byte aligned and need not be cleared. */
POINTREND_API int pointrend_uncertain(float const* uncertainty, int64_t* indices, int32_t n, int32_t l,
                                      int32_t k, void* workspace, size_t workspace_bytes, void* stream);

/* RoIAlign, aligned, of boxes (n, r, 4) float32, (x1, y1, x2, y2) in
 * pixels of the network input -> out (n * r, c, side, side) of the features' type. features, heights and widths
 * are host arrays of `levels` entries, 1 to 4: maps (n, c, heights[i], widths[i]) of stride 2^(first_level + i).
 * A box is pooled from level floor(4 + log2(sqrt(area) / 224 + 1e-8)) or the nearest there is. A bin has
 * sampling_ratio samples along each axis or, where that is 0, as many as its extent in cells, rounded up: none of a
 * box without area, which gives zeros. So does one with a corner that is NaN or infinite. Sums are float32.
 * first_level + levels <= 12, side <= 64, sampling_ratio <= 16, heights[i] + widths[i] <= 11000, n * r < 2^31. */
POINTREND_API int pointrend_roi_align(float const* boxes, void const* const* features, int feature_type, void* out,
                                      int32_t n, int32_t r, int32_t c, int32_t const* heights,
                                      int32_t const* widths, int32_t first_level, int32_t levels, int32_t side,
                                      int32_t sampling_ratio, void* stream);

/* Bytes of workspace of pointrend_nms, whatever k is; 0 for arguments outside their range. */
POINTREND_API size_t pointrend_nms_workspace(int32_t n, int32_t groups, int32_t l);

/* Greedy suppression of boxes (n, groups, l, 4) by scores (n, groups, l), float32, within each group -> the best k
 * of all groups: indices (n, k) int64 into groups * l by falling score, 0 in places past the count, and count
 * (n,) int64. A candidate's score is strictly above score_threshold (no NaN is); a candidate is dropped where its
 * IoU with a kept one of its group is strictly above iou_threshold. Exact and deterministic: ties go to the lower
 * index. 1 <= k <= 3840, 0 <= iou_threshold <= 1, groups * l < 2^31, n and groups <= 65535. The workspace is
 * 256-byte aligned and need not be cleared. */
POINTREND_API int pointrend_nms(float const* boxes, float const* scores, int64_t* indices, int64_t* count, int32_t n,
                                int32_t groups, int32_t l, int32_t k, float iou_threshold, float score_threshold,
                                void* workspace, size_t workspace_bytes, void* stream);

/* Logits (n, c, h, w), float32 or float16, upsampled bilinearly by `scale` (align_corners=False, edges clamped), of
 * which nothing is kept but, for each of the h * w * scale^2 cells, uncertainty (n, cells) float32, the second highest
 * logit minus the highest, and labels (n, cells) int32, the class of the highest, ties to the lower class. `labels`
 * may be NULL. Sums are float32; NaN is below every number. c >= 2, scale 2, 4, 8 or 16, cells < 2^31, n <= 65535. */
POINTREND_API int pointrend_upsample_two_best(void const* logits, int logits_type, float* uncertainty,
                                              int32_t* labels, int32_t n, int32_t c, int32_t h, int32_t w,
                                              int32_t scale, void* stream);

/* Logits (n, c, h, w), upsampled in the same way, with point logits (n, c, k) put in at flat indices (n, k) of the
 * result's cells -> out (n, c, h * scale, w * scale) float32. Both inputs are float32 or float16. No index is there
 * twice; one beside the map is left out. n * c <= 65535, 1 <= k < 2^31 / c. */
POINTREND_API int pointrend_refine_logits(void const* logits, int logits_type, int64_t const* indices,
                                          void const* point_logits, int point_type, float* out, int32_t n, int32_t c,
                                          int32_t h, int32_t w, int32_t scale, int32_t k, void* stream);

/* Labels (n, l) and, at flat indices (n, k), the class of the highest of point logits (n, c, k), float32 or float16,
 * ties to the lower class, NaN below every number -> out (n, l), another buffer than labels. No index is there twice;
 * one beside the map is left out. n <= 65535. */
POINTREND_API int pointrend_refine_labels(int32_t const* labels, int64_t const* indices, void const* point_logits,
                                          int point_type, int32_t* out, int32_t n, int32_t c, int32_t l, int32_t k,
                                          void* stream);

/* The text of an error that one of these returned. */
POINTREND_API char const* pointrend_error_string(int error);

/* Compiled against this TensorRT: major * 10000 + minor * 100 + patch; 0 for a library without plugins. */
POINTREND_API int32_t pointrend_tensorrt_version(void);

#ifdef __cplusplus
}
#endif

#endif
