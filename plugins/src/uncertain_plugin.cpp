#include "uncertain_plugin.h"

#include "log.h"
#include "uncertain.h"

namespace pointrend {

using nvinfer1::DataType;

namespace {

constexpr char const* kField = "k";

int32_t refuse(char const* why) noexcept {
    log_error(UncertainPlugin::kName, why);
    return kFailed;
}

} // namespace

UncertainPlugin::UncertainPlugin(int32_t k) noexcept
    : k_(k), field_(field_of(kField, &k_)), fields_(collection_of(&field_, 1)) {}

UncertainPlugin::UncertainPlugin(UncertainPlugin const& other) noexcept : UncertainPlugin(other.k_) {}

int32_t UncertainPlugin::getOutputDataTypes(DataType* outputs, int32_t output_count, DataType const*,
                                            int32_t input_count) const noexcept {
    if (input_count != 1 || output_count != 1) {
        return refuse("takes one input and has one output");
    }
    outputs[0] = DataType::kINT64;
    return 0;
}

int32_t UncertainPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count,
                                         nvinfer1::DimsExprs const*, int32_t, nvinfer1::DimsExprs* outputs,
                                         int32_t output_count, nvinfer1::IExprBuilder& expressions) noexcept {
    if (input_count != 1 || output_count != 1) {
        return refuse("takes one input and has one output");
    }
    if (inputs[0].nbDims != 2) {
        return refuse("uncertainty has 2 dimensions, (N, L)");
    }
    outputs[0].nbDims = 2;
    outputs[0].d[0] = inputs[0].d[0];
    outputs[0].d[1] = expressions.constant(k_);
    return 0;
}

bool UncertainPlugin::supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                                int32_t input_count, int32_t output_count) noexcept {
    nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
    return input_count == 1 && output_count == 1 && linear(tensor) &&
           tensor.type == (position == 0 ? DataType::kFLOAT : DataType::kINT64);
}

int32_t UncertainPlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                         nvinfer1::DynamicPluginTensorDesc const*, int32_t) noexcept {
    if (input_count != 1) {
        return refuse("takes one input");
    }
    int64_t const length = inputs[0].max.d[1];
    if (k_ < 1 || (length >= 0 && k_ > length)) {
        return refuse("k is at least 1 and at most the number of cells");
    }
    return 0;
}

size_t UncertainPlugin::getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t,
                                         nvinfer1::DynamicPluginTensorDesc const*, int32_t) const noexcept {
    return uncertain_workspace(static_cast<int32_t>(inputs[0].max.d[0]), static_cast<int32_t>(inputs[0].max.d[1]));
}

int32_t UncertainPlugin::enqueue(nvinfer1::PluginTensorDesc const* input_descriptions,
                                 nvinfer1::PluginTensorDesc const*, void const* const* inputs, void* const* outputs,
                                 void* workspace, cudaStream_t stream) noexcept {
    auto const n = static_cast<int32_t>(input_descriptions[0].dims.d[0]);
    auto const l = static_cast<int32_t>(input_descriptions[0].dims.d[1]);
    // TensorRT gives what getWorkspaceSize asked for the largest shapes, or more.
    cudaError_t const error =
        uncertain(static_cast<float const*>(inputs[0]), static_cast<int64_t*>(outputs[0]), n, l, k_, workspace,
                  uncertain_workspace(n, l), stream);
    return error == cudaSuccess ? 0 : refuse(cudaGetErrorString(error));
}

nvinfer1::PluginFieldCollection const* UncertainPlugin::getFieldsToSerialize() noexcept { return &fields_; }

UncertainCreator::UncertainCreator() noexcept
    : field_(field_of<int32_t>(kField, nullptr)), fields_(collection_of(&field_, 1)) {}

nvinfer1::IPluginV3* UncertainCreator::createPlugin(nvinfer1::AsciiChar const*,
                                                    nvinfer1::PluginFieldCollection const* fields,
                                                    nvinfer1::TensorRTPhase) noexcept {
    int32_t k = 0;
    if (!read_field(fields, kField, k) || k < 1) {
        log_error(UncertainPlugin::kName, "needs its attribute k, an integer of at least 1");
        return nullptr;
    }
    return new (std::nothrow) UncertainPlugin(k);
}

} // namespace pointrend
