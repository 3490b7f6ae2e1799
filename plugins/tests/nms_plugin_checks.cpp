#include "held_plugin.h"
#include "more_plugins.h"
#include "pointrend_plugins.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace {

using namespace nvinfer1;
using namespace played;

Node nms_node(int32_t k = 3, float iou = 0.5F, float score = 0.0F) {
    return Node().with("k", k).with("iou_threshold", iou).with("score_threshold", score);
}

void check_nms_creator(IPluginCreatorV3One& creator) {
    check_fields(creator, nms_node());
    for (int32_t const k : {0, 3841, -5}) {
        EXPECT(refused(creator, nms_node(k, 0.5F, 0.0F), "PointRendNMS: needs its attribute k"));
    }
    for (float const iou : {-0.1F, 1.1F, std::nanf("")}) {
        EXPECT(refused(creator, nms_node(3, iou, 0.0F), "PointRendNMS: iou_threshold is 0 to 1"));
    }
    EXPECT(refused(creator, nms_node(3, 0.5F, std::nanf("")), "PointRendNMS: score_threshold is a number"));
    std::unique_ptr<IPluginV3> const made(nms_node(3840, 1.0F, -INFINITY).made_by(creator));
    EXPECT(made != nullptr);
}

void check_nms_shapes(Held const& held) {
    DataType const inputs[] = {DataType::kFLOAT, DataType::kFLOAT};
    DataType types[2] = {};
    EXPECT(held.build->getOutputDataTypes(types, 2, inputs, 2) == 0);
    EXPECT(types[0] == DataType::kINT64 && types[1] == DataType::kINT64);
    EXPECT(held.build->getOutputDataTypes(types, 1, inputs, 2) != 0);
    EXPECT(last_message("PointRendNMS: takes boxes and scores, and has two outputs"));

    Extents extents;
    DimsExprs const shapes[] = {extents.of({2, 5, 7, 4}), extents.of({2, 5, 7})};
    DimsExprs const flat[] = {extents.of({2, 35, 4}), extents.of({2, 35})};
    DimsExprs outputs[2] = {};
    EXPECT(held.build->getOutputShapes(shapes, 2, nullptr, 0, outputs, 2, extents) == 0);
    EXPECT(outputs[0].nbDims == 2 && outputs[0].d[0]->getConstantValue() == 2);
    EXPECT(outputs[0].d[1]->getConstantValue() == 3);
    EXPECT(outputs[1].nbDims == 1 && outputs[1].d[0]->getConstantValue() == 2);
    EXPECT(held.build->getOutputShapes(flat, 2, nullptr, 0, outputs, 2, extents) != 0);
    EXPECT(last_message("PointRendNMS: boxes have 4 dimensions"));
    EXPECT(held.build->getOutputShapes(shapes, 2, nullptr, 0, outputs, 1, extents) != 0);

    auto const boxes = tensor({2, 5, 7, 4}, DataType::kFLOAT);
    auto const scores = tensor({2, 5, 7}, DataType::kFLOAT);
    auto const indices = tensor({2, 3}, DataType::kINT64);
    auto const count = tensor({2}, DataType::kINT64);
    for (int32_t position = 0; position < 4; ++position) {
        EXPECT(supports(held, {boxes, scores, indices, count}, position, 2));
    }
    auto const half = tensor({2, 5, 7}, DataType::kHALF);
    auto const int32 = tensor({2}, DataType::kINT32);
    EXPECT(!supports(held, {boxes, half, indices, count}, 1, 2));
    EXPECT(!supports(held, {boxes, scores, indices, int32}, 3, 2));
    EXPECT(!supports(held, {boxes, scores, indices}, 0, 2));

    DynamicPluginTensorDesc const out[] = {indices, count};
    auto const configured = [&](DynamicPluginTensorDesc const& first, DynamicPluginTensorDesc const& second) {
        DynamicPluginTensorDesc const both[] = {first, second};
        return held.build->configurePlugin(both, 2, out, 2) == 0;
    };
    auto const scored = [](int64_t n, int64_t g, int64_t l) { return tensor({n, g, l}, DataType::kFLOAT); };
    auto const boxed = [](int64_t n, int64_t g, int64_t l, int64_t corners) {
        return tensor({n, g, l, corners}, DataType::kFLOAT);
    };
    EXPECT(configured(boxes, scores) && configured(boxed(-1, 5, -1, 4), scored(-1, 5, -1)));
    EXPECT(!configured(scores, scores) && last_message("boxes have 4 dimensions"));
    EXPECT(!configured(boxed(2, 5, 7, 5), scores) && last_message("four corners"));
    EXPECT(!configured(boxes, scored(1, 5, 7)) && last_message("a score for each box"));
    EXPECT(!configured(boxes, scored(2, 5, 6)) && last_message("a score for each box"));
    EXPECT(!configured(boxed(1, 70000, 1, 4), scored(1, 70000, 1)) && last_message("N and G are 1 to 65535"));
    EXPECT(held.build->configurePlugin(&boxes, 1, out, 2) != 0 && last_message("takes boxes and scores"));
    DynamicPluginTensorDesc const both[] = {boxes, scores};
    EXPECT(held.build->getWorkspaceSize(both, 2, out, 2) == pointrend_nms_workspace(2, 5, 7));
}

// Two groups of two boxes that overlap by more than a half, and a box apart.
void check_nms_results(Held const& held) {
    float const boxes[] = {0, 0, 10, 10, 0, 0, 10, 9, 50, 50, 60, 60, 0, 0, 10, 10, 0, 0, 10, 9, 50, 50, 60, 60};
    float const scores[] = {0.5F, 0.9F, 0.5F, 0.0F, -1.0F, 0.9F};
    int64_t indices[] = {-1, -1, -1};
    int64_t count[] = {-1};
    size_t const bytes = pointrend_nms_workspace(1, 2, 3);
    std::unique_ptr<void, void (*)(void*)> const workspace(std::aligned_alloc(256, bytes), std::free);
    void const* const from[] = {boxes, scores};
    void* const to[] = {indices, count};
    PluginTensorDesc const described[] = {tensor({1, 2, 3, 4}, DataType::kFLOAT).desc,
                                          tensor({1, 2, 3}, DataType::kFLOAT).desc};
    EXPECT(held.runtime->enqueue(described, nullptr, from, to, workspace.get(), nullptr) == 0);
    EXPECT(count[0] == 3 && indices[0] == 1 && indices[1] == 5 && indices[2] == 2);
    EXPECT(held.runtime->enqueue(described, nullptr, from, to, nullptr, nullptr) != 0);
    EXPECT(last_message("PointRendNMS: invalid argument"));
}

} // namespace

void check_nms() {
    check_nms_creator(*creator("PointRendNMS"));
    Held const held = hold_op("PointRendNMS", nms_node(), 2);
    check_nms_shapes(held);
    check_nms_results(held);
}
