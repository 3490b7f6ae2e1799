#include "held_plugin.h"
#include "more_plugins.h"
#include "pointrend_plugins.h"

#include <cstdint>
#include <cstring>
#include <memory>

namespace {

using namespace nvinfer1;
using namespace played;

Node upsample_node(int32_t scale = 2) { return Node().with("scale", scale); }

void check_upsample_creator(char const* op) {
    IPluginCreatorV3One& made_by = *creator(op);
    check_fields(made_by, upsample_node());
    for (int32_t const scale : {0, 1, 3, 6, 32, -2}) {
        EXPECT(refused(made_by, upsample_node(scale), "needs its attribute scale, an integer: 2, 4, 8 or 16"));
    }
    std::unique_ptr<IPluginV3> const made(upsample_node(16).made_by(made_by));
    EXPECT(made != nullptr);
}

// What TensorRT asks of a plugin whose outputs are all (rows, cells): `second` is the type of the second output.
void check_answers(Held const& held, int32_t outputs, DataType second) {
    DataType const input = DataType::kHALF;
    DataType types[2] = {};
    EXPECT(held.build->getOutputDataTypes(types, outputs, &input, 1) == 0);
    EXPECT(types[0] == DataType::kFLOAT && (outputs == 1 || types[1] == second));
    EXPECT(held.build->getOutputDataTypes(types, outputs, &input, 2) != 0 && last_message(": takes logits"));

    Extents extents;
    DimsExprs const shape = extents.of({3, 4, 5, 7});
    DimsExprs const flat = extents.of({3, 35});
    DimsExprs found[2] = {};
    EXPECT(held.build->getOutputShapes(&shape, 1, nullptr, 0, found, outputs, extents) == 0);
    for (int32_t i = 0; i < outputs; ++i) {
        EXPECT(found[i].nbDims == 2 && found[i].d[0]->getConstantValue() == 3);
        EXPECT(found[i].d[1]->getConstantValue() == 5 * 7 * 4);
    }
    EXPECT(held.build->getOutputShapes(&flat, 1, nullptr, 0, found, outputs, extents) != 0 && last_message("logits"));
    EXPECT(held.build->getOutputShapes(&shape, 1, nullptr, 0, found, outputs + 1, extents) != 0);

    auto const logits = [](int64_t n, int64_t h, int64_t w, DataType type = DataType::kFLOAT) {
        return tensor({n, 4, h, w}, type);
    };
    auto const out = tensor({3, 140}, DataType::kFLOAT);
    auto const other = tensor({3, 140}, second);
    auto const takes = [&](DynamicPluginTensorDesc const& from, DynamicPluginTensorDesc const& first,
                           DynamicPluginTensorDesc const& next, int32_t position) {
        return outputs == 1 ? supports(held, {from, first}, position, 1)
                            : supports(held, {from, first, next}, position, 1);
    };
    auto const half = logits(3, 5, 7, DataType::kHALF);
    for (int32_t position = 0; position <= outputs; ++position) {
        EXPECT(takes(logits(3, 5, 7), out, other, position) && takes(half, out, other, position));
    }
    EXPECT(!takes(logits(3, 5, 7, DataType::kINT8), out, other, 0));
    EXPECT(!takes(half, tensor({3, 140}, DataType::kHALF), other, 1));
    EXPECT(outputs == 1 || !takes(half, out, tensor({3, 140}, DataType::kUINT8), 2));
    DynamicPluginTensorDesc last = half;
    last.desc.format = TensorFormat::kHWC8;
    EXPECT(!takes(last, out, other, 0));
    EXPECT(!supports(held, {half, out, other, other}, 0, 1));

    DynamicPluginTensorDesc const both[] = {out, other};
    auto const configured = [&](DynamicPluginTensorDesc const& from) {
        return held.build->configurePlugin(&from, 1, both, outputs) == 0;
    };
    EXPECT(configured(logits(3, 5, 7)) && configured(logits(-1, 5, 7)) && configured(logits(-1, -1, -1)));
    EXPECT(!configured(out) && last_message("logits"));
    EXPECT(!configured(logits(1, 30000, 30000)) && last_message("fewer than 2^31 cells"));
    EXPECT(!configured(logits(70000, 5, 7)) && last_message("at most 65535"));
    EXPECT(held.build->configurePlugin(both, 2, both, outputs) != 0);
    DynamicPluginTensorDesc const given = logits(3, 5, 7);
    EXPECT(held.build->getWorkspaceSize(&given, 1, both, outputs) == 0);
}

// Classes (0, 4) and (2, 2) in a row: 0, 1, 3, 4 and 2, 2, 2, 2 twice as wide, in two rows.
void check_labels(Held const& held, int32_t outputs) {
    float const logits[] = {0.0F, 4.0F, 2.0F, 2.0F};
    uint16_t const halves[] = {0x0000, 0x4400, 0x4000, 0x4000};
    for (DataType const type : {DataType::kFLOAT, DataType::kHALF}) {
        float uncertainty[8] = {};
        int32_t labels[8] = {};
        void const* const from[] = {type == DataType::kFLOAT ? static_cast<void const*>(logits) : halves};
        void* const to[] = {uncertainty, labels};
        PluginTensorDesc const described = tensor({1, 2, 1, 2}, type).desc;
        EXPECT(held.runtime->enqueue(&described, nullptr, from, to, nullptr, nullptr) == 0);
        float const unsure[] = {-2.0F, -1.0F, -1.0F, -2.0F};
        int32_t const best[] = {1, 1, 0, 0};
        for (int32_t i = 0; i < 8; ++i) {
            EXPECT(uncertainty[i] == unsure[i % 4]);
            EXPECT(labels[i] == (outputs == 1 ? 0 : best[i % 4]));
        }
        void* const nowhere[] = {uncertainty, nullptr};
        bool const done = held.runtime->enqueue(&described, nullptr, from, nowhere, nullptr, nullptr) == 0;
        EXPECT(done == (outputs == 1));
    }
    EXPECT(outputs == 1 || last_message("PointRendUpsampleLabels: invalid argument"));
}

} // namespace

void check_upsample() {
    struct Op {
        char const* name;
        int32_t outputs;
        DataType second;
    };
    for (Op const& op : {Op{"PointRendUpsampleUncertainty", 1, DataType::kFLOAT},
                         Op{"PointRendUpsampleLabels", 2, DataType::kINT32}}) {
        check_upsample_creator(op.name);
        Held const held = hold_op(op.name, upsample_node(), op.outputs);
        check_answers(held, op.outputs, op.second);
        check_labels(held, op.outputs);
        auto const one_class = tensor({1, 1, 5, 7}, DataType::kFLOAT);
        DynamicPluginTensorDesc const out[] = {one_class, one_class};
        EXPECT(held.build->configurePlugin(&one_class, 1, out, op.outputs) != 0);
        EXPECT(last_message("2 classes at least"));
    }
}
