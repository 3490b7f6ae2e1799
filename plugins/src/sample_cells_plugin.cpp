// PointRendSampleCells for TensorRT.
#include "creators.h"
#include "plugin.h"
#include "sample.h"

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kFine = 0, kCoarse = 1, kIndices = 2 };

struct GridAttributes {
    int32_t grid_height;
    int32_t grid_width;

    std::array<nvinfer1::PluginField, 2> fields() const noexcept {
        return {field_of("grid_height", grid_height), field_of("grid_width", grid_width)};
    }

    char const* read(nvinfer1::PluginFieldCollection const* fields) noexcept {
        bool const there = read_field(fields, "grid_height", grid_height) && read_field(fields, "grid_width", grid_width);
        bool const fits = there && grid_height >= 1 && grid_width >= 1 && grid_width <= INT32_MAX / grid_height;
        return fits ? nullptr : "needs its attributes grid_height and grid_width, integers of at least 1";
    }
};

bool channels_last(nvinfer1::PluginTensorDesc const& tensor) noexcept {
    return tensor.format == nvinfer1::TensorFormat::kHWC8 && tensor.type == DataType::kHALF;
}

// Fine features (N, C, h, w) and coarse logits (N, D, h', w'), both FP32 or FP16, the latter with the channels last
// (HWC8) too, and flat indices of cells (N, K) INT64 -> (N, C + D rounded up to a multiple of 8, K) of their type.
struct SampleCellsPlugin final : Plugin<SampleCellsPlugin, GridAttributes, 3, 1> {
    static constexpr char const* kName = "PointRendSampleCells";
    static constexpr char const* kArity = "takes fine features, coarse logits and indices, and has one output";
    static constexpr char const* kRanks = "features and logits have 4 dimensions, (N, C, h, w), and indices 2, (N, K)";

    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder& expressions) const noexcept override {
        if (inputs[kFine].nbDims != 4 || inputs[kCoarse].nbDims != 4 || inputs[kIndices].nbDims != 2) {
            return kRanks;
        }
        nvinfer1::IDimensionExpr const& fine = *inputs[kFine].d[1];
        nvinfer1::IDimensionExpr const& coarse = *inputs[kCoarse].d[1];
        if (!fine.isConstant() || !coarse.isConstant()) {
            return "the numbers of channels are fixed";
        }
        outputs[0].nbDims = 3;
        outputs[0].d[0] = inputs[kFine].d[0];
        outputs[0].d[1] =
            expressions.constant(sampled_channels(extent(fine.getConstantValue()), extent(coarse.getConstantValue())));
        outputs[0].d[2] = inputs[kIndices].d[1];
        return nullptr;
    }

    DataType output_type(int32_t, DataType const* inputs) const noexcept override { return inputs[kFine]; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
        switch (position) {
        case kFine:
            return channels_last(tensor) || (linear(tensor) && float_or_half(tensor.type));
        case kCoarse:
            return (linear(tensor) || channels_last(tensor)) && tensor.type == tensors[kFine].desc.type;
        case kIndices:
            return linear(tensor) && tensor.type == DataType::kINT64;
        default:
            return linear(tensor) && tensor.type == tensors[kFine].desc.type;
        }
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& fine = inputs[kFine].desc.dims;
        nvinfer1::Dims const& coarse = inputs[kCoarse].desc.dims;
        nvinfer1::Dims const& indices = inputs[kIndices].desc.dims;
        if (fine.nbDims != 4 || coarse.nbDims != 4 || indices.nbDims != 2) {
            return kRanks;
        }
        bool const same = same_extent(fine.d[0], coarse.d[0]) && same_extent(fine.d[0], indices.d[0]);
        return same ? nullptr : "features, logits and indices have one batch size";
    }

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void*, cudaStream_t stream) const noexcept override {
        nvinfer1::Dims const& indices = described[kIndices].dims;
        CellsShape const shape{extent(indices.d[0]), attributes().grid_height, attributes().grid_width,
                               extent(indices.d[1])};
        return sample_cells(map_of(described[kFine], inputs[kFine]), map_of(described[kCoarse], inputs[kCoarse]),
                            static_cast<int64_t const*>(inputs[kIndices]), outputs[0],
                            described[kFine].type == DataType::kHALF, shape, stream);
    }

private:
    static MapToSample map_of(nvinfer1::PluginTensorDesc const& tensor, void const* data) noexcept {
        return {data, extent(tensor.dims.d[1]), extent(tensor.dims.d[2]), extent(tensor.dims.d[3]),
                channels_last(tensor)};
    }
};

} // namespace

nvinfer1::IPluginCreatorInterface& sample_cells_creator() noexcept {
    static Creator<SampleCellsPlugin> creator;
    return creator;
}

} // namespace pointrend
