#include "nms_plugin.h"

#include "log.h"

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kBoxes = 0, kScores = 1, kInputs = 2 };
enum Output : int32_t { kIndices = 0, kCount = 1, kOutputs = 2 };

constexpr char const* kK = "k";
constexpr char const* kIouThreshold = "iou_threshold";
constexpr char const* kScoreThreshold = "score_threshold";
constexpr char const* kArity = "takes boxes and scores, and has two outputs";

int32_t refuse(char const* why) noexcept {
    log_error(NmsPlugin::kName, why);
    return kFailed;
}

bool arity(int32_t input_count, int32_t output_count) noexcept {
    return input_count == kInputs && output_count == kOutputs;
}

} // namespace

NmsPlugin::NmsPlugin(NmsAttributes const& attributes) noexcept
    : attributes_(attributes), field_{field_of(kK, &attributes_.k), field_of(kIouThreshold, &attributes_.thresholds.iou),
                                      field_of(kScoreThreshold, &attributes_.thresholds.score)},
      fields_(collection_of(field_, 3)) {}

NmsPlugin::NmsPlugin(NmsPlugin const& other) noexcept : NmsPlugin(other.attributes_) {}

int32_t NmsPlugin::getOutputDataTypes(DataType* outputs, int32_t output_count, DataType const*,
                                      int32_t input_count) const noexcept {
    if (!arity(input_count, output_count)) {
        return refuse(kArity);
    }
    outputs[kIndices] = DataType::kINT64;
    outputs[kCount] = DataType::kINT64;
    return 0;
}

int32_t NmsPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count, nvinfer1::DimsExprs const*,
                                   int32_t, nvinfer1::DimsExprs* outputs, int32_t output_count,
                                   nvinfer1::IExprBuilder& expressions) noexcept {
    if (!arity(input_count, output_count)) {
        return refuse(kArity);
    }
    if (inputs[kBoxes].nbDims != 4 || inputs[kScores].nbDims != 3) {
        return refuse("boxes have 4 dimensions, (N, G, L, 4), and scores 3, (N, G, L)");
    }
    outputs[kIndices].nbDims = 2;
    outputs[kIndices].d[0] = inputs[kScores].d[0];
    outputs[kIndices].d[1] = expressions.constant(attributes_.k);
    outputs[kCount].nbDims = 1;
    outputs[kCount].d[0] = inputs[kScores].d[0];
    return 0;
}

bool NmsPlugin::supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                          int32_t input_count, int32_t output_count) noexcept {
    nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
    return arity(input_count, output_count) && linear(tensor) &&
           tensor.type == (position < kInputs ? DataType::kFLOAT : DataType::kINT64);
}

int32_t NmsPlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                   nvinfer1::DynamicPluginTensorDesc const*, int32_t output_count) noexcept {
    if (!arity(input_count, output_count)) {
        return refuse(kArity);
    }
    nvinfer1::Dims const& boxes = inputs[kBoxes].desc.dims;
    nvinfer1::Dims const& scores = inputs[kScores].desc.dims;
    if (boxes.nbDims != 4 || scores.nbDims != 3) {
        return refuse("boxes have 4 dimensions, (N, G, L, 4), and scores 3, (N, G, L)");
    }
    if (!same_extent(boxes.d[3], 4)) {
        return refuse("a box has four corners, (x1, y1, x2, y2)");
    }
    for (int32_t i = 0; i < 3; ++i) {
        if (!same_extent(boxes.d[i], scores.d[i])) {
            return refuse("there is a score for each box: (N, G, L, 4) and (N, G, L)");
        }
    }
    nvinfer1::Dims const& largest = inputs[kScores].max;
    bool const known = largest.d[0] >= 0 && largest.d[1] >= 0 && largest.d[2] >= 0;
    if (known && getWorkspaceSize(inputs, input_count, nullptr, output_count) == 0U) {
        return refuse("N and G are 1 to 65535, L is 1 at least and G * L less than 2^31");
    }
    return 0;
}

size_t NmsPlugin::getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t,
                                   nvinfer1::DynamicPluginTensorDesc const*, int32_t) const noexcept {
    nvinfer1::Dims const& scores = inputs[kScores].max;
    return nms_workspace(extent(scores.d[0]), extent(scores.d[1]), extent(scores.d[2]));
}

int32_t NmsPlugin::enqueue(nvinfer1::PluginTensorDesc const* input_descriptions, nvinfer1::PluginTensorDesc const*,
                           void const* const* inputs, void* const* outputs, void* workspace,
                           cudaStream_t stream) noexcept {
    nvinfer1::Dims const& scores = input_descriptions[kScores].dims;
    NmsShape const shape{extent(scores.d[0]), extent(scores.d[1]), extent(scores.d[2]), attributes_.k};
    // TensorRT gives what getWorkspaceSize asked for the largest shapes, or more.
    cudaError_t const error =
        nms(static_cast<float const*>(inputs[kBoxes]), static_cast<float const*>(inputs[kScores]),
            static_cast<int64_t*>(outputs[kIndices]), static_cast<int64_t*>(outputs[kCount]), shape,
            attributes_.thresholds, workspace, nms_workspace(shape.n, shape.groups, shape.l), stream);
    return error == cudaSuccess ? 0 : refuse(cudaGetErrorString(error));
}

nvinfer1::PluginFieldCollection const* NmsPlugin::getFieldsToSerialize() noexcept { return &fields_; }

NmsCreator::NmsCreator() noexcept
    : field_{field_of<int32_t>(kK, nullptr), field_of<float>(kIouThreshold, nullptr),
             field_of<float>(kScoreThreshold, nullptr)},
      fields_(collection_of(field_, 3)) {}

nvinfer1::IPluginV3* NmsCreator::createPlugin(nvinfer1::AsciiChar const*, nvinfer1::PluginFieldCollection const* fields,
                                              nvinfer1::TensorRTPhase) noexcept {
    NmsAttributes attributes{};
    if (!read_field(fields, kK, attributes.k) || attributes.k < 1 || attributes.k > kMaxKept) {
        log_error(NmsPlugin::kName, "needs its attribute k, an integer of 1 to 3840");
        return nullptr;
    }
    if (!read_field(fields, kIouThreshold, attributes.thresholds.iou) ||
        !read_field(fields, kScoreThreshold, attributes.thresholds.score)) {
        log_error(NmsPlugin::kName, "needs its attributes iou_threshold and score_threshold, one float each");
        return nullptr;
    }
    if (char const* const wrong = wrong_with(attributes.thresholds)) {
        log_error(NmsPlugin::kName, wrong);
        return nullptr;
    }
    return new (std::nothrow) NmsPlugin(attributes);
}

} // namespace pointrend
