// PointRendUncertain for TensorRT.
#include "creators.h"
#include "plugin.h"
#include "uncertain.h"

namespace pointrend {

using nvinfer1::DataType;

namespace {

struct UncertainAttributes {
    int32_t k;

    std::array<nvinfer1::PluginField, 1> fields() const noexcept { return {field_of("k", k)}; }

    char const* read(nvinfer1::PluginFieldCollection const* fields) noexcept {
        return read_field(fields, "k", k) && k >= 1 ? nullptr : "needs its attribute k, an integer of at least 1";
    }
};

// Uncertainty (N, L) FP32 -> the k highest as flat indices (N, k) INT64.
struct UncertainPlugin final : Plugin<UncertainPlugin, UncertainAttributes, 1, 1> {
    static constexpr char const* kName = "PointRendUncertain";
    static constexpr char const* kArity = "takes one input and has one output";

    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder& expressions) const noexcept override {
        if (inputs[0].nbDims != 2) {
            return "uncertainty has 2 dimensions, (N, L)";
        }
        outputs[0].nbDims = 2;
        outputs[0].d[0] = inputs[0].d[0];
        outputs[0].d[1] = expressions.constant(attributes().k);
        return nullptr;
    }

    DataType output_type(int32_t, DataType const*) const noexcept override { return DataType::kINT64; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
        return linear(tensor) && tensor.type == (position == 0 ? DataType::kFLOAT : DataType::kINT64);
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        int64_t const length = inputs[0].max.d[1];
        bool const fits = attributes().k >= 1 && (length < 0 || attributes().k <= length);
        return fits ? nullptr : "k is at least 1 and at most the number of cells";
    }

    size_t workspace_bytes(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& largest = inputs[0].max;
        return uncertain_workspace(static_cast<int32_t>(largest.d[0]), static_cast<int32_t>(largest.d[1]));
    }

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void* workspace, cudaStream_t stream) const noexcept override {
        auto const n = static_cast<int32_t>(described[0].dims.d[0]);
        auto const l = static_cast<int32_t>(described[0].dims.d[1]);
        return uncertain(static_cast<float const*>(inputs[0]), static_cast<int64_t*>(outputs[0]), n, l, attributes().k,
                         workspace, uncertain_workspace(n, l), stream);
    }
};

} // namespace

nvinfer1::IPluginCreatorInterface& uncertain_creator() noexcept {
    static Creator<UncertainPlugin> creator;
    return creator;
}

} // namespace pointrend
