// Launcher of the selection: no TensorRT here.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

namespace pointrend {

// Bytes of workspace for rows of length l, whatever k is. 0 where n is not in [1, 65535] or l below 1.
size_t uncertain_workspace(int32_t n, int32_t l);

// The k highest of each row of uncertainty (n, l) -> indices (n, k), ascending. Ties to the lower index;
// -0 equals +0; NaN stands below -infinity. cudaErrorInvalidValue unless 1 <= k <= l, n <= 65535 and the
// workspace, 256-byte aligned, is large enough.
cudaError_t uncertain(float const* uncertainty, int64_t* indices, int32_t n, int32_t l, int32_t k, void* workspace,
                      size_t workspace_bytes, cudaStream_t stream);

} // namespace pointrend
