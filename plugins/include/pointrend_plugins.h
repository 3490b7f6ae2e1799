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

enum { POINTREND_FLOAT32 = 0, POINTREND_FLOAT16 = 1 };

/* Bilinear samples of features (n, c, h, w) at points (n, p, 2), float32 (x, y) in [0, 1] of the map,
 * cell centres at (i + 0.5) / size, zeros outside -> out (n, c, p) of the features' type. Sums are
 * float32. h * w < 2^31, n <= 65535. Pointers need the alignment of their element only. */
POINTREND_API int pointrend_sample(void const* features, int feature_type, float const* points, void* out,
                                   int32_t n, int32_t c, int32_t h, int32_t w, int32_t p, void* stream);

/* Bytes of workspace of pointrend_uncertain, whatever k is; 0 for arguments outside their range. */
POINTREND_API size_t pointrend_uncertain_workspace(int32_t n, int32_t l);

/* The k highest of each row of uncertainty (n, l) float32 -> flat indices (n, k) int64 in ascending order
 * of index. Exact and deterministic: ties go to the lower index, -0 equals +0, NaN stands below
 * -infinity. 1 <= k <= l, n <= 65535. The workspace is 256-byte aligned and need not be cleared. */
POINTREND_API int pointrend_uncertain(float const* uncertainty, int64_t* indices, int32_t n, int32_t l,
                                      int32_t k, void* workspace, size_t workspace_bytes, void* stream);

/* The text of an error that one of these returned. */
POINTREND_API char const* pointrend_error_string(int error);

/* Compiled against this TensorRT: major * 10000 + minor * 100 + patch; 0 for a library without plugins. */
POINTREND_API int32_t pointrend_tensorrt_version(void);

#ifdef __cplusplus
}
#endif

#endif
