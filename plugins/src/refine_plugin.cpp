// PointRendRefineLogits and PointRendRefineLabels for TensorRT.
#include "creators.h"
#include "plugin.h"
#include "refine.h"
#include "scale_attributes.h"

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kBase = 0, kIndices = 1, kPointLogits = 2 };

Logits logits_of(nvinfer1::PluginTensorDesc const& described, void const* data) noexcept {
    return {data, described.type == DataType::kHALF};
}

// Whether indices (N, K) and point logits (N, C, K) are of one N and K, and of the base's N.
bool same_points(nvinfer1::Dims const& base, nvinfer1::Dims const& indices, nvinfer1::Dims const& point_logits) noexcept {
    return indices.nbDims == 2 && point_logits.nbDims == 3 && same_extent(indices.d[0], base.d[0]) &&
           same_extent(point_logits.d[0], base.d[0]) && same_extent(indices.d[1], point_logits.d[2]);
}

constexpr char const* kPoints = "indices are (N, K) and point logits (N, C, K)";

// Logits (N, C, h, w) FP32 or FP16, indices (N, K) INT64, point logits (N, C, K) FP32 or FP16
// -> (N, C, h * scale, w * scale) FP32.
struct RefineLogitsPlugin final : Plugin<RefineLogitsPlugin, ScaleAttributes, 3, 1> {
    static constexpr char const* kName = "PointRendRefineLogits";
    static constexpr char const* kArity = "takes logits, indices and point logits, and has one output";
    static constexpr char const* kRank = "logits have 4 dimensions, (N, C, h, w)";

    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder& expressions) const noexcept override {
        if (inputs[kBase].nbDims != 4) {
            return kRank;
        }
        outputs[0] = inputs[kBase];
        for (int32_t axis : {2, 3}) {
            outputs[0].d[axis] = expressions.operation(nvinfer1::DimensionOperation::kPROD, *inputs[kBase].d[axis],
                                                       *expressions.constant(attributes().scale));
        }
        return nullptr;
    }

    DataType output_type(int32_t, DataType const*) const noexcept override { return DataType::kFLOAT; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
        switch (position) {
        case kBase:
        case kPointLogits:
            return linear(tensor) && float_or_half(tensor.type);
        case kIndices:
            return linear(tensor) && tensor.type == DataType::kINT64;
        default:
            return linear(tensor) && tensor.type == DataType::kFLOAT;
        }
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& base = inputs[kBase].desc.dims;
        nvinfer1::Dims const& point_logits = inputs[kPointLogits].desc.dims;
        if (base.nbDims != 4) {
            return kRank;
        }
        bool const same = same_points(base, inputs[kIndices].desc.dims, point_logits);
        return same && same_extent(base.d[1], point_logits.d[1]) ? nullptr : kPoints;
    }

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void*, cudaStream_t stream) const noexcept override {
        nvinfer1::Dims const& base = described[kBase].dims;
        UpsampleShape const shape{extent(base.d[0]), extent(base.d[1]), extent(base.d[2]), extent(base.d[3]),
                                  attributes().scale};
        return refine_logits(logits_of(described[kBase], inputs[kBase]), static_cast<int64_t const*>(inputs[kIndices]),
                             logits_of(described[kPointLogits], inputs[kPointLogits]), static_cast<float*>(outputs[0]),
                             shape, extent(described[kIndices].dims.d[1]), stream);
    }
};

// Labels (N, L) INT32, indices (N, K) INT64, point logits (N, C, K) FP32 or FP16 -> (N, L) INT32.
struct RefineLabelsPlugin final : Plugin<RefineLabelsPlugin, NoAttributes, 3, 1> {
    static constexpr char const* kName = "PointRendRefineLabels";
    static constexpr char const* kArity = "takes labels, indices and point logits, and has one output";
    static constexpr char const* kRank = "labels have 2 dimensions, (N, L)";

    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder&) const noexcept override {
        if (inputs[kBase].nbDims != 2) {
            return kRank;
        }
        outputs[0] = inputs[kBase];
        return nullptr;
    }

    DataType output_type(int32_t, DataType const*) const noexcept override { return DataType::kINT32; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
        switch (position) {
        case kIndices:
            return linear(tensor) && tensor.type == DataType::kINT64;
        case kPointLogits:
            return linear(tensor) && float_or_half(tensor.type);
        default:
            return linear(tensor) && tensor.type == DataType::kINT32;
        }
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& base = inputs[kBase].desc.dims;
        if (base.nbDims != 2) {
            return kRank;
        }
        return same_points(base, inputs[kIndices].desc.dims, inputs[kPointLogits].desc.dims) ? nullptr : kPoints;
    }

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void*, cudaStream_t stream) const noexcept override {
        nvinfer1::Dims const& base = described[kBase].dims;
        nvinfer1::Dims const& points = described[kPointLogits].dims;
        return refine_labels(static_cast<int32_t const*>(inputs[kBase]), static_cast<int64_t const*>(inputs[kIndices]),
                             logits_of(described[kPointLogits], inputs[kPointLogits]),
                             static_cast<int32_t*>(outputs[0]), extent(base.d[0]), extent(points.d[1]),
                             extent(base.d[1]), extent(points.d[2]), stream);
    }
};

} // namespace

nvinfer1::IPluginCreatorInterface& refine_logits_creator() noexcept {
    static Creator<RefineLogitsPlugin> creator;
    return creator;
}

nvinfer1::IPluginCreatorInterface& refine_labels_creator() noexcept {
    static Creator<RefineLabelsPlugin> creator;
    return creator;
}

} // namespace pointrend
