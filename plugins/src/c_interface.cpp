#include "pointrend_plugins.h"

#include "sample.h"
#include "uncertain.h"

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

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

char const* pointrend_error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

} // extern "C"
