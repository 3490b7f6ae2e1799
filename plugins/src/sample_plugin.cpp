// PointRendSample for TensorRT.
#include "creators.h"
#include "plugin.h"
#include "sample.h"

#include <cuda_fp16.h>

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kFeatures = 0, kPoints = 1 };

// Convolutions of an FP16 model give this layout, and a point's channels lie together in it.
bool channels_last(nvinfer1::PluginTensorDesc const& tensor) noexcept {
    return tensor.format == nvinfer1::TensorFormat::kHWC8 && tensor.type == DataType::kHALF;
}

// Features (N, C, H, W) FP32 or FP16, the latter with the channels last (HWC8) too, and points (N, P, 2) FP32 ->
// (N, C, P) of the features' type.
struct SamplePlugin final : Plugin<SamplePlugin, NoAttributes, 2, 1> {
    static constexpr char const* kName = "PointRendSample";
    static constexpr char const* kArity = "takes features and points, and has one output";

    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder&) const noexcept override {
        if (inputs[kFeatures].nbDims != 4 || inputs[kPoints].nbDims != 3) {
            return "features have 4 dimensions, (N, C, H, W), and points 3, (N, P, 2)";
        }
        outputs[0].nbDims = 3;
        outputs[0].d[0] = inputs[kFeatures].d[0];
        outputs[0].d[1] = inputs[kFeatures].d[1];
        outputs[0].d[2] = inputs[kPoints].d[1];
        return nullptr;
    }

    DataType output_type(int32_t, DataType const* inputs) const noexcept override { return inputs[kFeatures]; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
        switch (position) {
        case kFeatures:
            return channels_last(tensor) || (linear(tensor) && float_or_half(tensor.type));
        case kPoints:
            return linear(tensor) && tensor.type == DataType::kFLOAT;
        default:
            return linear(tensor) && tensor.type == tensors[kFeatures].desc.type;
        }
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& features = inputs[kFeatures].desc.dims;
        nvinfer1::Dims const& points = inputs[kPoints].desc.dims;
        if (points.nbDims == 3 && !same_extent(points.d[2], 2)) {
            return "a point has two coordinates, (x, y)";
        }
        if (points.nbDims == 3 && !same_extent(points.d[0], features.d[0])) {
            return "features and points have one batch size";
        }
        return nullptr;
    }

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void*, cudaStream_t stream) const noexcept override {
        nvinfer1::Dims const& map = described[kFeatures].dims;
        SampleShape const shape{extent(map.d[0]), extent(map.d[1]), extent(map.d[2]), extent(map.d[3]),
                                extent(described[kPoints].dims.d[1])};
        auto const* const points = static_cast<float const*>(inputs[kPoints]);
        if (described[kFeatures].type == DataType::kFLOAT) {
            return sample(static_cast<float const*>(inputs[kFeatures]), points, static_cast<float*>(outputs[0]), shape,
                          stream);
        }
        auto const* const features = static_cast<__half const*>(inputs[kFeatures]);
        auto* const out = static_cast<__half*>(outputs[0]);
        return channels_last(described[kFeatures]) ? sample_channels_last(features, points, out, shape, stream)
                                                   : sample(features, points, out, shape, stream);
    }
};

} // namespace

nvinfer1::IPluginCreatorInterface& sample_creator() noexcept {
    static Creator<SamplePlugin> creator;
    return creator;
}

} // namespace pointrend
