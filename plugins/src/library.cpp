// What TensorRT looks for in a plugin library.
#include "creators.h"
#include "log.h"
#include "pointrend_plugins.h"

#include "NvInferRuntime.h"
#include "NvInferVersion.h"

extern "C" {

POINTREND_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static nvinfer1::IPluginCreatorInterface* const creators[] = {
        &pointrend::nms_creator(),
        &pointrend::refine_labels_creator(),
        &pointrend::refine_logits_creator(),
        &pointrend::roi_align_creator(),
        &pointrend::roi_align_fixed_creator(),
        &pointrend::sample_cells_creator(),
        &pointrend::sample_creator(),
        &pointrend::sample_rois_creator(),
        &pointrend::uncertain_creator(),
        &pointrend::upsample_labels_creator(),
        &pointrend::upsample_uncertainty_creator(),
    };
    count = static_cast<int32_t>(sizeof creators / sizeof *creators);
    return creators;
}

POINTREND_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { pointrend::set_logger_finder(finder); }

int32_t pointrend_tensorrt_version(void) {
    return NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
}

} // extern "C"
