#include "held_plugin.h"
#include "more_plugins.h"

#include <cstdint>
#include <memory>

namespace {

using namespace nvinfer1;
using namespace played;

// What both plugins answer for their three inputs, of which the first is `base`, and `out`, their output.
void check_answers(Held const& held, DynamicPluginTensorDesc const& base, DynamicPluginTensorDesc const& out) {
    auto const indices = tensor({2, 5}, DataType::kINT64);
    auto const points = tensor({2, 3, 5}, DataType::kFLOAT);
    auto const half = tensor({2, 3, 5}, DataType::kHALF);
    for (int32_t position = 0; position < 4; ++position) {
        EXPECT(supports(held, {base, indices, points, out}, position, 3));
        EXPECT(supports(held, {base, indices, half, out}, position, 3));
    }
    EXPECT(!supports(held, {base, tensor({2, 5}, DataType::kINT32), points, out}, 1, 3));
    EXPECT(!supports(held, {base, indices, tensor({2, 3, 5}, DataType::kINT8), out}, 2, 3));
    EXPECT(!supports(held, {tensor({2, 8}, DataType::kINT8), indices, points, out}, 0, 3));
    EXPECT(!supports(held, {base, indices, points, half}, 3, 3));
    EXPECT(!supports(held, {base, indices, points}, 0, 2));

    auto const configured = [&](DynamicPluginTensorDesc const& first, DynamicPluginTensorDesc const& second,
                                DynamicPluginTensorDesc const& third) {
        DynamicPluginTensorDesc const inputs[] = {first, second, third};
        return held.build->configurePlugin(inputs, 3, &out, 1) == 0;
    };
    EXPECT(configured(base, indices, points) && configured(base, tensor({-1, -1}, DataType::kINT64), points));
    EXPECT(!configured(tensor({2}, DataType::kFLOAT), indices, points) && last_message("dimensions"));
    EXPECT(!configured(base, tensor({2, 4}, DataType::kINT64), points) && last_message("indices are (N, K)"));
    EXPECT(!configured(base, tensor({1, 5}, DataType::kINT64), points) && last_message("indices are (N, K)"));
    EXPECT(!configured(base, indices, tensor({1, 3, 5}, DataType::kFLOAT)) && last_message("indices are (N, K)"));
    EXPECT(!configured(base, indices, indices) && last_message("indices are (N, K)"));
    EXPECT(held.build->configurePlugin(&base, 1, &out, 1) != 0 && last_message("indices and point logits"));
    DynamicPluginTensorDesc const inputs[] = {base, indices, points};
    EXPECT(held.build->getWorkspaceSize(inputs, 3, &out, 1) == 0);
}

bool run(Held const& held, PluginTensorDesc const (&described)[3], void const* base, void const* points, void* out) {
    int64_t const indices[] = {3, 0};
    void const* const from[] = {base, indices, points};
    return held.runtime->enqueue(described, nullptr, from, &out, nullptr, nullptr) == 0;
}

void check_logits() {
    Node const node = Node().with("scale", int32_t{2});
    check_fields(*creator("PointRendRefineLogits"), node);
    EXPECT(refused(*creator("PointRendRefineLogits"), Node().with("scale", int32_t{3}), "2, 4, 8 or 16"));
    Held const held = hold_op("PointRendRefineLogits", node, 1);
    DataType const inputs[] = {DataType::kHALF, DataType::kINT64, DataType::kHALF};
    DataType type{};
    EXPECT(held.build->getOutputDataTypes(&type, 1, inputs, 3) == 0 && type == DataType::kFLOAT);
    Extents extents;
    DimsExprs const shapes[] = {extents.of({2, 3, 4, 5}), extents.of({2, 5}), extents.of({2, 3, 5})};
    DimsExprs const flat[] = {extents.of({2, 3, 20}), extents.of({2, 5}), extents.of({2, 3, 5})};
    DimsExprs shape{};
    EXPECT(held.build->getOutputShapes(shapes, 3, nullptr, 0, &shape, 1, extents) == 0 && shape.nbDims == 4);
    int64_t const sides[] = {2, 3, 8, 10};
    for (int32_t i = 0; i < 4; ++i) {
        EXPECT(shape.d[i]->getConstantValue() == sides[i]);
    }
    EXPECT(held.build->getOutputShapes(flat, 3, nullptr, 0, &shape, 1, extents) != 0 && last_message("(N, C, h, w)"));

    auto const out = tensor({2, 3, 8, 10}, DataType::kFLOAT);
    check_answers(held, tensor({2, 3, 4, 5}, DataType::kFLOAT), out);
    check_answers(held, tensor({2, 3, 4, 5}, DataType::kHALF), out);
    DynamicPluginTensorDesc const classes[] = {tensor({2, 4, 4, 5}, DataType::kFLOAT), tensor({2, 5}, DataType::kINT64),
                                               tensor({2, 3, 5}, DataType::kFLOAT)};
    EXPECT(held.build->configurePlugin(classes, 3, &out, 1) != 0 && last_message("indices are (N, K)"));

    // One cell of 1.0 becomes four; 2.0 is put into the last and 4.0 into the first.
    float const logits[] = {1.0F};
    uint16_t const half_logits[] = {0x3C00};
    float const points[] = {2.0F, 4.0F};
    uint16_t const half_points[] = {0x4000, 0x4400};
    for (DataType const of_logits : {DataType::kFLOAT, DataType::kHALF}) {
        for (DataType const of_points : {DataType::kFLOAT, DataType::kHALF}) {
            PluginTensorDesc const described[] = {tensor({1, 1, 1, 1}, of_logits).desc,
                                                  tensor({1, 2}, DataType::kINT64).desc,
                                                  tensor({1, 1, 2}, of_points).desc};
            float refined[4] = {};
            void const* const base = of_logits == DataType::kFLOAT ? static_cast<void const*>(logits) : half_logits;
            void const* const put = of_points == DataType::kFLOAT ? static_cast<void const*>(points) : half_points;
            EXPECT(run(held, described, base, put, refined));
            EXPECT(refined[0] == 4.0F && refined[1] == 1.0F && refined[2] == 1.0F && refined[3] == 2.0F);
            EXPECT(!run(held, described, base, nullptr, refined));
            EXPECT(last_message("PointRendRefineLogits: invalid argument"));
        }
    }
}

void check_labels() {
    IPluginCreatorV3One* const made_by = creator("PointRendRefineLabels");
    EXPECT(made_by != nullptr && made_by->getFieldNames()->nbFields == 0);
    Held const held = hold_op("PointRendRefineLabels", Node(), 1);
    DataType const inputs[] = {DataType::kINT32, DataType::kINT64, DataType::kHALF};
    DataType type{};
    EXPECT(held.build->getOutputDataTypes(&type, 1, inputs, 3) == 0 && type == DataType::kINT32);
    Extents extents;
    DimsExprs const shapes[] = {extents.of({2, 8}), extents.of({2, 5}), extents.of({2, 3, 5})};
    DimsExprs const maps[] = {extents.of({2, 2, 4}), extents.of({2, 5}), extents.of({2, 3, 5})};
    DimsExprs shape{};
    EXPECT(held.build->getOutputShapes(shapes, 3, nullptr, 0, &shape, 1, extents) == 0 && shape.nbDims == 2);
    EXPECT(shape.d[0]->getConstantValue() == 2 && shape.d[1]->getConstantValue() == 8);
    EXPECT(held.build->getOutputShapes(maps, 3, nullptr, 0, &shape, 1, extents) != 0 && last_message("(N, L)"));
    check_answers(held, tensor({2, 8}, DataType::kINT32), tensor({2, 8}, DataType::kINT32));

    // The class of the highest of (1, 2) is 1, and of (4, 4) it is 0.
    int32_t const labels[] = {9, 9, 9, 9};
    float const points[] = {1.0F, 4.0F, 2.0F, 4.0F};
    uint16_t const half_points[] = {0x3C00, 0x4400, 0x4000, 0x4400};
    for (DataType const of_points : {DataType::kFLOAT, DataType::kHALF}) {
        PluginTensorDesc const described[] = {tensor({1, 4}, DataType::kINT32).desc, tensor({1, 2}, DataType::kINT64).desc,
                                              tensor({1, 2, 2}, of_points).desc};
        int32_t refined[4] = {};
        void const* const put = of_points == DataType::kFLOAT ? static_cast<void const*>(points) : half_points;
        EXPECT(run(held, described, labels, put, refined));
        EXPECT(refined[0] == 0 && refined[1] == 9 && refined[2] == 9 && refined[3] == 1);
        EXPECT(!run(held, described, nullptr, put, refined));
        EXPECT(last_message("PointRendRefineLabels: invalid argument"));
    }
}

} // namespace

void check_refine() {
    check_logits();
    check_labels();
}
