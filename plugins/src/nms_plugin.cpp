// PointRendNMS for TensorRT.
#include "creators.h"
#include "nms.h"
#include "plugin.h"

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kBoxes = 0, kScores = 1 };
enum Output : int32_t { kIndices = 0, kCount = 1 };

constexpr char const* kRanks = "boxes have 4 dimensions, (N, G, L, 4), and scores 3, (N, G, L)";

struct NmsAttributes {
    int32_t k;
    NmsThresholds thresholds;

    std::array<nvinfer1::PluginField, 3> fields() const noexcept {
        return {field_of("k", k), field_of("iou_threshold", thresholds.iou),
                field_of("score_threshold", thresholds.score)};
    }

    char const* read(nvinfer1::PluginFieldCollection const* fields) noexcept {
        if (!read_field(fields, "k", k) || k < 1 || k > kMaxKept) {
            return "needs its attribute k, an integer of 1 to 3840";
        }
        if (!read_field(fields, "iou_threshold", thresholds.iou) ||
            !read_field(fields, "score_threshold", thresholds.score)) {
            return "needs its attributes iou_threshold and score_threshold, one float each";
        }
        return pointrend::wrong_with(thresholds);
    }
};

// Boxes (N, G, L, 4) FP32 and scores (N, G, L) FP32 -> flat indices (N, k) INT64 and their count (N,) INT64.
struct NmsPlugin final : Plugin<NmsPlugin, NmsAttributes, 2, 2> {
    static constexpr char const* kName = "PointRendNMS";
    static constexpr char const* kArity = "takes boxes and scores, and has two outputs";

    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder& expressions) const noexcept override {
        if (inputs[kBoxes].nbDims != 4 || inputs[kScores].nbDims != 3) {
            return kRanks;
        }
        outputs[kIndices].nbDims = 2;
        outputs[kIndices].d[0] = inputs[kScores].d[0];
        outputs[kIndices].d[1] = expressions.constant(attributes().k);
        outputs[kCount].nbDims = 1;
        outputs[kCount].d[0] = inputs[kScores].d[0];
        return nullptr;
    }

    DataType output_type(int32_t, DataType const*) const noexcept override { return DataType::kINT64; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
        return linear(tensor) && tensor.type == (position < kInputs ? DataType::kFLOAT : DataType::kINT64);
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& boxes = inputs[kBoxes].desc.dims;
        nvinfer1::Dims const& scores = inputs[kScores].desc.dims;
        if (boxes.nbDims != 4 || scores.nbDims != 3) {
            return kRanks;
        }
        if (!same_extent(boxes.d[3], 4)) {
            return "a box has four corners, (x1, y1, x2, y2)";
        }
        for (int32_t i = 0; i < 3; ++i) {
            if (!same_extent(boxes.d[i], scores.d[i])) {
                return "there is a score for each box: (N, G, L, 4) and (N, G, L)";
            }
        }
        nvinfer1::Dims const& largest = inputs[kScores].max;
        bool const known = largest.d[0] >= 0 && largest.d[1] >= 0 && largest.d[2] >= 0;
        if (known && workspace_bytes(inputs) == 0U) {
            return "N and G are 1 to 65535, L is 1 at least and G * L less than 2^31";
        }
        return nullptr;
    }

    size_t workspace_bytes(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        nvinfer1::Dims const& scores = inputs[kScores].max;
        return nms_workspace(extent(scores.d[0]), extent(scores.d[1]), extent(scores.d[2]));
    }

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void* workspace, cudaStream_t stream) const noexcept override {
        nvinfer1::Dims const& scores = described[kScores].dims;
        NmsShape const shape{extent(scores.d[0]), extent(scores.d[1]), extent(scores.d[2]), attributes().k};
        return nms(static_cast<float const*>(inputs[kBoxes]), static_cast<float const*>(inputs[kScores]),
                   static_cast<int64_t*>(outputs[kIndices]), static_cast<int64_t*>(outputs[kCount]), shape,
                   attributes().thresholds, workspace, nms_workspace(shape.n, shape.groups, shape.l), stream);
    }
};

} // namespace

nvinfer1::IPluginCreatorInterface& nms_creator() noexcept {
    static Creator<NmsPlugin> creator;
    return creator;
}

} // namespace pointrend
