#include "roi_align_plugin.h"

#include "log.h"

#include <cuda_fp16.h>

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kBoxes = 0, kFeatures = 1, kInputs = kFeatures + kMaxRoiLevels };

constexpr char const* kFirstLevel = "first_level";
constexpr char const* kLevels = "levels";
constexpr char const* kSide = "side";
constexpr char const* kArity = "takes boxes and four feature maps, and has one output";
constexpr char const* kRanks = "boxes have 3 dimensions, (N, R, 4), and feature maps 4, (N, C, h, w)";

int32_t refuse(char const* why) noexcept {
    log_error(RoiAlignPlugin::kName, why);
    return kFailed;
}

RoiAlignShape shape_of(RoiAlignAttributes const& attributes) noexcept {
    RoiAlignShape shape{};
    shape.first_level = attributes.first_level;
    shape.levels = attributes.levels;
    shape.side = attributes.side;
    return shape;
}

} // namespace

RoiAlignPlugin::RoiAlignPlugin(RoiAlignAttributes const& attributes) noexcept
    : attributes_(attributes), field_{field_of(kFirstLevel, &attributes_.first_level),
                                      field_of(kLevels, &attributes_.levels), field_of(kSide, &attributes_.side)},
      fields_(collection_of(field_, 3)) {}

RoiAlignPlugin::RoiAlignPlugin(RoiAlignPlugin const& other) noexcept : RoiAlignPlugin(other.attributes_) {}

int32_t RoiAlignPlugin::getOutputDataTypes(DataType* outputs, int32_t output_count, DataType const* inputs,
                                           int32_t input_count) const noexcept {
    if (input_count != kInputs || output_count != 1) {
        return refuse(kArity);
    }
    outputs[0] = inputs[kFeatures];
    return 0;
}

int32_t RoiAlignPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count,
                                        nvinfer1::DimsExprs const*, int32_t, nvinfer1::DimsExprs* outputs,
                                        int32_t output_count, nvinfer1::IExprBuilder& expressions) noexcept {
    if (input_count != kInputs || output_count != 1) {
        return refuse(kArity);
    }
    for (int32_t i = 0; i < kInputs; ++i) {
        if (inputs[i].nbDims != (i == kBoxes ? 3 : 4)) {
            return refuse(kRanks);
        }
    }
    nvinfer1::DimsExprs const& boxes = inputs[kBoxes];
    outputs[0].nbDims = 4;
    outputs[0].d[0] = expressions.operation(nvinfer1::DimensionOperation::kPROD, *boxes.d[0], *boxes.d[1]);
    outputs[0].d[1] = inputs[kFeatures].d[1];
    outputs[0].d[2] = expressions.constant(attributes_.side);
    outputs[0].d[3] = expressions.constant(attributes_.side);
    return 0;
}

bool RoiAlignPlugin::supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                               int32_t input_count, int32_t output_count) noexcept {
    if (input_count != kInputs || output_count != 1 || !linear(tensors[position].desc)) {
        return false;
    }
    DataType const type = tensors[position].desc.type;
    switch (position) {
    case kBoxes:
        return type == DataType::kFLOAT;
    case kFeatures:
        return type == DataType::kFLOAT || type == DataType::kHALF;
    default:
        return type == tensors[kFeatures].desc.type;
    }
}

int32_t RoiAlignPlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                        nvinfer1::DynamicPluginTensorDesc const*, int32_t) noexcept {
    if (input_count != kInputs) {
        return refuse(kArity);
    }
    nvinfer1::Dims const& boxes = inputs[kBoxes].desc.dims;
    nvinfer1::Dims const& first = inputs[kFeatures].desc.dims;
    if (boxes.nbDims != 3 || first.nbDims != 4) {
        return refuse(kRanks);
    }
    if (!same_extent(boxes.d[2], 4)) {
        return refuse("a box has four corners, (x1, y1, x2, y2)");
    }
    if (!same_extent(boxes.d[0], first.d[0])) {
        return refuse("boxes and feature maps have one batch size");
    }
    // Where an extent is not known yet, 1 stands for it: nothing is wrong with that.
    auto const known = [](int64_t size) { return size < 0 ? 1 : extent(size); };
    RoiAlignShape shape = shape_of(attributes_);
    shape.n = known(boxes.d[0]);
    shape.r = known(boxes.d[1]);
    shape.c = known(first.d[1]);
    for (int32_t i = 0; i < attributes_.levels; ++i) {
        nvinfer1::Dims const& map = inputs[kFeatures + i].desc.dims;
        if (map.nbDims != 4) {
            return refuse(kRanks);
        }
        if (!same_extent(map.d[0], first.d[0]) || !same_extent(map.d[1], first.d[1])) {
            return refuse("feature maps have one batch size and as many channels");
        }
        shape.h[i] = known(map.d[2]);
        shape.w[i] = known(map.d[3]);
    }
    char const* const wrong = wrong_with(shape);
    return wrong == nullptr ? 0 : refuse(wrong);
}

int32_t RoiAlignPlugin::enqueue(nvinfer1::PluginTensorDesc const* input_descriptions, nvinfer1::PluginTensorDesc const*,
                                void const* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept {
    RoiAlignShape shape = shape_of(attributes_);
    shape.n = extent(input_descriptions[kBoxes].dims.d[0]);
    shape.r = extent(input_descriptions[kBoxes].dims.d[1]);
    shape.c = extent(input_descriptions[kFeatures].dims.d[1]);
    float const* floats[kMaxRoiLevels] = {};
    __half const* halves[kMaxRoiLevels] = {};
    for (int32_t i = 0; i < shape.levels; ++i) {
        nvinfer1::Dims const& map = input_descriptions[kFeatures + i].dims;
        shape.h[i] = extent(map.d[2]);
        shape.w[i] = extent(map.d[3]);
        floats[i] = static_cast<float const*>(inputs[kFeatures + i]);
        halves[i] = static_cast<__half const*>(inputs[kFeatures + i]);
    }
    auto const* const boxes = static_cast<float const*>(inputs[kBoxes]);
    cudaError_t const error = input_descriptions[kFeatures].type == DataType::kHALF
                                  ? roi_align(boxes, halves, static_cast<__half*>(outputs[0]), shape, stream)
                                  : roi_align(boxes, floats, static_cast<float*>(outputs[0]), shape, stream);
    return error == cudaSuccess ? 0 : refuse(cudaGetErrorString(error));
}

nvinfer1::PluginFieldCollection const* RoiAlignPlugin::getFieldsToSerialize() noexcept { return &fields_; }

RoiAlignCreator::RoiAlignCreator() noexcept
    : field_{field_of<int32_t>(kFirstLevel, nullptr), field_of<int32_t>(kLevels, nullptr),
             field_of<int32_t>(kSide, nullptr)},
      fields_(collection_of(field_, 3)) {}

nvinfer1::IPluginV3* RoiAlignCreator::createPlugin(nvinfer1::AsciiChar const*,
                                                   nvinfer1::PluginFieldCollection const* fields,
                                                   nvinfer1::TensorRTPhase) noexcept {
    RoiAlignAttributes attributes{};
    if (!read_field(fields, kFirstLevel, attributes.first_level) || !read_field(fields, kLevels, attributes.levels) ||
        !read_field(fields, kSide, attributes.side)) {
        log_error(RoiAlignPlugin::kName, "needs its attributes first_level, levels and side, one integer each");
        return nullptr;
    }
    RoiAlignShape shape = shape_of(attributes);
    shape.n = shape.r = shape.c = 1;
    for (int32_t i = 0; i < kMaxRoiLevels; ++i) {
        shape.h[i] = shape.w[i] = 1;
    }
    if (char const* const wrong = wrong_with(shape)) {
        log_error(RoiAlignPlugin::kName, wrong);
        return nullptr;
    }
    return new (std::nothrow) RoiAlignPlugin(attributes);
}

} // namespace pointrend
