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

// Convolutions of an FP16 model give this layout, and a point's channels lie together in it.
bool channels_last(nvinfer1::PluginTensorDesc const& tensor) noexcept {
    return tensor.format == nvinfer1::TensorFormat::kHWC8 && tensor.type == DataType::kHALF;
}

cudaError_t sample_described(nvinfer1::PluginTensorDesc const& described, void const* features, float const* points,
                             void* out, SampleShape shape, cudaStream_t stream) noexcept {
    if (described.type == DataType::kFLOAT) {
        return sample(static_cast<float const*>(features), points, static_cast<float*>(out), shape, stream);
    }
    auto const* const halves = static_cast<__half const*>(features);
    auto* const to = static_cast<__half*>(out);
    return channels_last(described) ? sample_channels_last(halves, points, to, shape, stream)
                                    : sample(halves, points, to, shape, stream);
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
    if (input_count != kInputs || output_count != 1) {
        return false;
    }
    nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
    switch (position) {
    case kFeatures:
        return channels_last(tensor) ||
               (linear(tensor) && (tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF));
    case kPoints:
        return linear(tensor) && tensor.type == DataType::kFLOAT;
    default:
        return linear(tensor) && tensor.type == tensors[kFeatures].desc.type;
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
    if (points.nbDims == 3 && !same_extent(points.d[2], 2)) {
        return refuse("a point has two coordinates, (x, y)");
    }
    if (points.nbDims == 3 && !same_extent(points.d[0], features.d[0])) {
        return refuse("features and points have one batch size");
    }
    return 0;
}

int32_t SamplePlugin::enqueue(nvinfer1::PluginTensorDesc const* input_descriptions, nvinfer1::PluginTensorDesc const*,
                              void const* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept {
    nvinfer1::Dims const& features = input_descriptions[kFeatures].dims;
    SampleShape const shape{extent(features.d[0]), extent(features.d[1]), extent(features.d[2]), extent(features.d[3]),
                            extent(input_descriptions[kPoints].dims.d[1])};
    cudaError_t const error = sample_described(input_descriptions[kFeatures], inputs[kFeatures],
                                               static_cast<float const*>(inputs[kPoints]), outputs[0], shape, stream);
    return error == cudaSuccess ? 0 : refuse(cudaGetErrorString(error));
}

nvinfer1::PluginFieldCollection const* SamplePlugin::getFieldsToSerialize() noexcept { return &no_fields_; }

nvinfer1::IPluginV3* SampleCreator::createPlugin(nvinfer1::AsciiChar const*, nvinfer1::PluginFieldCollection const*,
                                                 nvinfer1::TensorRTPhase) noexcept {
    return new (std::nothrow) SamplePlugin();
}

} // namespace pointrend
