// PointRendUpsampleUncertainty and PointRendUpsampleLabels for TensorRT.
#include "creators.h"
#include "plugin.h"
#include "scale_attributes.h"
#include "upsample.h"

#include <cuda_fp16.h>

namespace pointrend {

using nvinfer1::DataType;

namespace {

constexpr char const* kRank = "logits have 4 dimensions, (N, C, h, w)";

// What both have in common: logits (N, C, h, w) FP32 or FP16 are the input, and outputs have a row for each image.
template <class Derived, int32_t outputs_of>
struct UpsamplePlugin : Plugin<Derived, ScaleAttributes, 1, outputs_of> {
    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder& expressions) const noexcept override {
        if (inputs[0].nbDims != 4) {
            return kRank;
        }
        int32_t const scale = this->attributes().scale;
        nvinfer1::IDimensionExpr const* const cells = expressions.operation(
            nvinfer1::DimensionOperation::kPROD, *inputs[0].d[2], *inputs[0].d[3]);
        for (int32_t i = 0; i < outputs_of; ++i) {
            outputs[i].nbDims = 2;
            outputs[i].d[0] = inputs[0].d[0];
            outputs[i].d[1] = expressions.operation(nvinfer1::DimensionOperation::kPROD, *cells,
                                                    *expressions.constant(scale * scale));
        }
        return nullptr;
    }

    DataType output_type(int32_t output, DataType const*) const noexcept override { return Derived::kTypes[output]; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
        return linear(tensor) &&
               (position == 0 ? float_or_half(tensor.type) : tensor.type == Derived::kTypes[position - 1]);
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& most = inputs[0].max;
        if (inputs[0].desc.dims.nbDims != 4) {
            return kRank;
        }
        int64_t const cells = this->attributes().scale * this->attributes().scale * most.d[2];
        if (most.d[2] > 0 && most.d[3] > INT32_MAX / cells) {
            return "a result has fewer than 2^31 cells";
        }
        if (most.d[0] > 65535) {
            return "there are at most 65535 images";
        }
        return most.d[1] < 0 || most.d[1] >= 2 ? nullptr : "there are 2 classes at least";
    }
};

cudaError_t two_best(nvinfer1::PluginTensorDesc const& logits, int32_t scale, void const* from, void* uncertainty,
                     void* labels, cudaStream_t stream) noexcept {
    nvinfer1::Dims const& dims = logits.dims;
    UpsampleShape const shape{extent(dims.d[0]), extent(dims.d[1]), extent(dims.d[2]), extent(dims.d[3]), scale};
    auto* const unsure = static_cast<float*>(uncertainty);
    auto* const best = static_cast<int32_t*>(labels);
    return logits.type == DataType::kFLOAT
               ? upsample_two_best(static_cast<float const*>(from), unsure, best, shape, stream)
               : upsample_two_best(static_cast<__half const*>(from), unsure, best, shape, stream);
}

// Logits (N, C, h, w) FP32 or FP16 -> uncertainty (N, h * w * scale^2) FP32.
struct UpsampleUncertaintyPlugin final : UpsamplePlugin<UpsampleUncertaintyPlugin, 1> {
    static constexpr char const* kName = "PointRendUpsampleUncertainty";
    static constexpr char const* kArity = "takes logits and has one output";
    static constexpr DataType kTypes[] = {DataType::kFLOAT};

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void*, cudaStream_t stream) const noexcept override {
        return two_best(described[0], attributes().scale, inputs[0], outputs[0], nullptr, stream);
    }
};

// The same -> uncertainty, and labels (N, h * w * scale^2) INT32.
struct UpsampleLabelsPlugin final : UpsamplePlugin<UpsampleLabelsPlugin, 2> {
    static constexpr char const* kName = "PointRendUpsampleLabels";
    static constexpr char const* kArity = "takes logits and has two outputs";
    static constexpr DataType kTypes[] = {DataType::kFLOAT, DataType::kINT32};

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void*, cudaStream_t stream) const noexcept override {
        return outputs[1] == nullptr
                   ? cudaErrorInvalidValue
                   : two_best(described[0], attributes().scale, inputs[0], outputs[0], outputs[1], stream);
    }
};

} // namespace

nvinfer1::IPluginCreatorInterface& upsample_uncertainty_creator() noexcept {
    static Creator<UpsampleUncertaintyPlugin> creator;
    return creator;
}

nvinfer1::IPluginCreatorInterface& upsample_labels_creator() noexcept {
    static Creator<UpsampleLabelsPlugin> creator;
    return creator;
}

} // namespace pointrend
