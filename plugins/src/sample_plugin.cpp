#include "sample_plugin.h"

#include "log.h"
#include "sample.h"

#include <cuda_fp16.h>

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kFeatures = 0, kPoints = 1, kInputs = 2 };

int32_t refuse(char const* why) noexcept {
    log_error(SamplePlugin::kName, why);
    return kFailed;
}

} // namespace

int32_t SamplePlugin::getOutputDataTypes(DataType* outputs, int32_t output_count, DataType const* inputs,
                                         int32_t input_count) const noexcept {
    if (input_count != kInputs || output_count != 1) {
        return refuse("takes features and points, and has one output");
    }
    outputs[0] = inputs[kFeatures];
    return 0;
}

int32_t SamplePlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count,
                                      nvinfer1::DimsExprs const*, int32_t, nvinfer1::DimsExprs* outputs,
                                      int32_t output_count, nvinfer1::IExprBuilder&) noexcept {
    if (input_count != kInputs || output_count != 1) {
        return refuse("takes features and points, and has one output");
    }
    if (inputs[kFeatures].nbDims != 4 || inputs[kPoints].nbDims != 3) {
        return refuse("features have 4 dimensions, (N, C, H, W), and points 3, (N, P, 2)");
    }
    outputs[0].nbDims = 3;
    outputs[0].d[0] = inputs[kFeatures].d[0];
    outputs[0].d[1] = inputs[kFeatures].d[1];
    outputs[0].d[2] = inputs[kPoints].d[1];
    return 0;
}

bool SamplePlugin::supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                             int32_t input_count, int32_t output_count) noexcept {
    if (input_count != kInputs || output_count != 1 || !linear(tensors[position].desc)) {
        return false;
    }
    DataType const type = tensors[position].desc.type;
    switch (position) {
    case kFeatures:
        return type == DataType::kFLOAT || type == DataType::kHALF;
    case kPoints:
        return type == DataType::kFLOAT;
    default:
        return type == tensors[kFeatures].desc.type;
    }
}

int32_t SamplePlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                      nvinfer1::DynamicPluginTensorDesc const*, int32_t) noexcept {
    if (input_count != kInputs) {
        return refuse("takes features and points");
    }
    nvinfer1::Dims const& features = inputs[kFeatures].desc.dims;
    nvinfer1::Dims const& points = inputs[kPoints].desc.dims;
    // A dimension not known yet is -1.
    if (points.nbDims == 3 && points.d[2] != 2 && points.d[2] != -1) {
        return refuse("a point has two coordinates, (x, y)");
    }
    if (points.nbDims == 3 && points.d[0] != features.d[0] && points.d[0] != -1 && features.d[0] != -1) {
        return refuse("features and points have one batch size");
    }
    return 0;
}

int32_t SamplePlugin::enqueue(nvinfer1::PluginTensorDesc const* input_descriptions, nvinfer1::PluginTensorDesc const*,
                              void const* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept {
    nvinfer1::Dims const& features = input_descriptions[kFeatures].dims;
    auto const size = [](int64_t extent) { return static_cast<int32_t>(extent); };
    SampleShape const shape{size(features.d[0]), size(features.d[1]), size(features.d[2]), size(features.d[3]),
                            size(input_descriptions[kPoints].dims.d[1])};
    auto const* const points = static_cast<float const*>(inputs[kPoints]);
    cudaError_t const error =
        input_descriptions[kFeatures].type == DataType::kHALF
            ? sample(static_cast<__half const*>(inputs[kFeatures]), points, static_cast<__half*>(outputs[0]), shape,
                     stream)
            : sample(static_cast<float const*>(inputs[kFeatures]), points, static_cast<float*>(outputs[0]), shape,
                     stream);
    return error == cudaSuccess ? 0 : refuse(cudaGetErrorString(error));
}

nvinfer1::PluginFieldCollection const* SamplePlugin::getFieldsToSerialize() noexcept { return &no_fields_; }

nvinfer1::IPluginV3* SampleCreator::createPlugin(nvinfer1::AsciiChar const*, nvinfer1::PluginFieldCollection const*,
                                                 nvinfer1::TensorRTPhase) noexcept {
    return new (std::nothrow) SamplePlugin();
}

} // namespace pointrend
