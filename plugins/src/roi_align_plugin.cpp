// PointRendRoIAlign and PointRendRoIAlignFixed for TensorRT.
#include "creators.h"
#include "plugin.h"
#include "roi_align.h"

#include <cuda_fp16.h>

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kBoxes = 0, kFeatures = 1 };

constexpr char const* kRanks = "boxes have 3 dimensions, (N, R, 4), and feature maps 4, (N, C, h, w)";

// Looks for what is wrong with attributes on the smallest inputs there are.
char const* wrong_with_attributes(RoiAlignShape smallest) noexcept {
    smallest.n = smallest.r = smallest.c = 1;
    for (int32_t i = 0; i < kMaxRoiLevels; ++i) {
        smallest.h[i] = smallest.w[i] = 1;
    }
    return pointrend::wrong_with(smallest);
}

struct RoiAlignAttributes {
    static constexpr char const* kOp = "PointRendRoIAlign";

    int32_t first_level;
    int32_t levels;
    int32_t side;

    std::array<nvinfer1::PluginField, 3> fields() const noexcept {
        return {field_of("first_level", first_level), field_of("levels", levels), field_of("side", side)};
    }

    char const* read(nvinfer1::PluginFieldCollection const* fields) noexcept {
        if (!read_field(fields, "first_level", first_level) || !read_field(fields, "levels", levels) ||
            !read_field(fields, "side", side)) {
            return "needs its attributes first_level, levels and side, one integer each";
        }
        return wrong_with_attributes(shape());
    }

    // With the extents of the inputs still to be filled in.
    RoiAlignShape shape() const noexcept { return RoiAlignShape{0, 0, 0, {}, {}, first_level, levels, side, 0}; }
};

struct FixedRoiAlignAttributes {
    static constexpr char const* kOp = "PointRendRoIAlignFixed";

    int32_t first_level;
    int32_t levels;
    int32_t side;
    int32_t sampling_ratio;

    std::array<nvinfer1::PluginField, 4> fields() const noexcept {
        return {field_of("first_level", first_level), field_of("levels", levels), field_of("side", side),
                field_of("sampling_ratio", sampling_ratio)};
    }

    char const* read(nvinfer1::PluginFieldCollection const* fields) noexcept {
        if (!read_field(fields, "first_level", first_level) || !read_field(fields, "levels", levels) ||
            !read_field(fields, "side", side) || !read_field(fields, "sampling_ratio", sampling_ratio)) {
            return "needs its attributes first_level, levels, side and sampling_ratio, one integer each";
        }
        return sampling_ratio < 1 ? "sampling_ratio is 1 to 16" : wrong_with_attributes(shape());
    }

    RoiAlignShape shape() const noexcept {
        return RoiAlignShape{0, 0, 0, {}, {}, first_level, levels, side, sampling_ratio};
    }
};

// Boxes (N, R, 4) FP32 and four maps (N, C, h, w) FP32 or FP16 -> (N * R, C, side, side) of the maps' type. Maps
// beyond `levels` are not read: the node repeats the last one there.
template <class OfNode>
struct RoiAlignPlugin final : Plugin<RoiAlignPlugin<OfNode>, OfNode, kFeatures + kMaxRoiLevels, 1> {
    static constexpr char const* kName = OfNode::kOp;
    static constexpr char const* kArity = "takes boxes and four feature maps, and has one output";

    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder& expressions) const noexcept override {
        for (int32_t i = 0; i < kFeatures + kMaxRoiLevels; ++i) {
            if (inputs[i].nbDims != (i == kBoxes ? 3 : 4)) {
                return kRanks;
            }
        }
        nvinfer1::DimsExprs const& boxes = inputs[kBoxes];
        outputs[0].nbDims = 4;
        outputs[0].d[0] = expressions.operation(nvinfer1::DimensionOperation::kPROD, *boxes.d[0], *boxes.d[1]);
        outputs[0].d[1] = inputs[kFeatures].d[1];
        outputs[0].d[2] = expressions.constant(this->attributes().side);
        outputs[0].d[3] = expressions.constant(this->attributes().side);
        return nullptr;
    }

    DataType output_type(int32_t, DataType const* inputs) const noexcept override { return inputs[kFeatures]; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        if (!linear(tensors[position].desc)) {
            return false;
        }
        DataType const type = tensors[position].desc.type;
        switch (position) {
        case kBoxes:
            return type == DataType::kFLOAT;
        case kFeatures:
            return float_or_half(type);
        default:
            return type == tensors[kFeatures].desc.type;
        }
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& boxes = inputs[kBoxes].desc.dims;
        nvinfer1::Dims const& first = inputs[kFeatures].desc.dims;
        bool ranks = boxes.nbDims == 3;
        for (int32_t i = 0; i < this->attributes().levels; ++i) {
            ranks = ranks && inputs[kFeatures + i].desc.dims.nbDims == 4;
        }
        if (!ranks) {
            return kRanks;
        }
        if (!same_extent(boxes.d[2], 4)) {
            return "a box has four corners, (x1, y1, x2, y2)";
        }
        if (!same_extent(boxes.d[0], first.d[0])) {
            return "boxes and feature maps have one batch size";
        }
        // Where an extent is not known yet, 1 stands for it: nothing is wrong with that.
        auto const known = [](int64_t size) { return size < 0 ? 1 : extent(size); };
        RoiAlignShape shape = this->attributes().shape();
        shape.n = known(boxes.d[0]);
        shape.r = known(boxes.d[1]);
        shape.c = known(first.d[1]);
        for (int32_t i = 0; i < shape.levels; ++i) {
            nvinfer1::Dims const& map = inputs[kFeatures + i].desc.dims;
            if (!same_extent(map.d[0], first.d[0]) || !same_extent(map.d[1], first.d[1])) {
                return "feature maps have one batch size and as many channels";
            }
            shape.h[i] = known(map.d[2]);
            shape.w[i] = known(map.d[3]);
        }
        return pointrend::wrong_with(shape);
    }

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void*, cudaStream_t stream) const noexcept override {
        RoiAlignShape shape = this->attributes().shape();
        shape.n = extent(described[kBoxes].dims.d[0]);
        shape.r = extent(described[kBoxes].dims.d[1]);
        shape.c = extent(described[kFeatures].dims.d[1]);
        float const* floats[kMaxRoiLevels] = {};
        __half const* halves[kMaxRoiLevels] = {};
        for (int32_t i = 0; i < shape.levels; ++i) {
            nvinfer1::Dims const& map = described[kFeatures + i].dims;
            shape.h[i] = extent(map.d[2]);
            shape.w[i] = extent(map.d[3]);
            floats[i] = static_cast<float const*>(inputs[kFeatures + i]);
            halves[i] = static_cast<__half const*>(inputs[kFeatures + i]);
        }
        auto const* const boxes = static_cast<float const*>(inputs[kBoxes]);
        return described[kFeatures].type == DataType::kHALF
                   ? roi_align(boxes, halves, static_cast<__half*>(outputs[0]), shape, stream)
                   : roi_align(boxes, floats, static_cast<float*>(outputs[0]), shape, stream);
    }
};

} // namespace

nvinfer1::IPluginCreatorInterface& roi_align_creator() noexcept {
    static Creator<RoiAlignPlugin<RoiAlignAttributes>> creator;
    return creator;
}

nvinfer1::IPluginCreatorInterface& roi_align_fixed_creator() noexcept {
    static Creator<RoiAlignPlugin<FixedRoiAlignAttributes>> creator;
    return creator;
}

} // namespace pointrend
