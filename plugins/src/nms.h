// Launcher of the suppression of overlapping boxes: no TensorRT here.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

namespace pointrend {

// As many as one TopK of TensorRT gives, so that the op means the same without the plugin.
constexpr int32_t kMaxKept = 3840;

// `groups` groups of l boxes a picture, which do not suppress one another; k kept boxes at the most.
struct NmsShape {
    int32_t n;
    int32_t groups;
    int32_t l;
    int32_t k;
};

// A candidate has a score strictly above `score`; it is dropped where its IoU with a kept one is strictly above `iou`.
struct NmsThresholds {
    float iou;
    float score;
};

// Returns why the thresholds are refused, nullptr where they are valid.
char const* wrong_with(NmsThresholds thresholds);

// Bytes of workspace, whatever k is. 0 where n or groups is not in [1, 65535], or l or groups * l out of range.
size_t nms_workspace(int32_t n, int32_t groups, int32_t l);

// boxes (n, groups, l, 4), scores (n, groups, l) -> indices (n, k) into groups * l by falling score, 0 in places
// past the count; count (n,). Ties, in the suppression too, go to the lower index; NaN is no score.
// cudaErrorInvalidValue unless 1 <= k <= kMaxKept, the iou threshold is in [0, 1], that of the score is not NaN
// and the workspace, 256-byte aligned, is large enough.
cudaError_t nms(float const* boxes, float const* scores, int64_t* indices, int64_t* count, NmsShape shape,
                NmsThresholds thresholds, void* workspace, size_t workspace_bytes, cudaStream_t stream);

} // namespace pointrend
