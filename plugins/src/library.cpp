// What TensorRT looks for in a plugin library.
#include "log.h"
#include "nms_plugin.h"
#include "pointrend_plugins.h"
#include "roi_align_plugin.h"
#include "sample_plugin.h"
#include "uncertain_plugin.h"

#include "NvInferRuntime.h"
#include "NvInferVersion.h"

extern "C" {

POINTREND_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static pointrend::NmsCreator nms;
    static pointrend::RoiAlignCreator roi_align;
    static pointrend::SampleCreator sample;
    static pointrend::UncertainCreator uncertain;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&nms, &roi_align, &sample, &uncertain};
    count = 4;
    return creators;
}

POINTREND_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { pointrend::set_logger_finder(finder); }

int32_t pointrend_tensorrt_version(void) {
    return NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
}

} // extern "C"
