#include "held_plugin.h"
#include "more_plugins.h"

#include <cstring>
#include <vector>

namespace {

using namespace nvinfer1;
using namespace played;

constexpr int32_t kInputs = 5;

// Two pictures with a map of 2 x 3 cells, two RoIs each with 7 x 7 cells, and five points a RoI.
std::vector<DynamicPluginTensorDesc> described(DataType type = DataType::kFLOAT) {
    return {tensor({2, 2, 3, 4}, type), tensor({4, 7, 7, 6}, type), tensor({4}, type),
            tensor({4, 4}, DataType::kFLOAT), tensor({4, 5, 2}, DataType::kFLOAT)};
}

void check_types(Held const& held) {
    DataType const inputs[] = {DataType::kHALF, DataType::kHALF, DataType::kHALF, DataType::kFLOAT, DataType::kFLOAT};
    DataType output{};
    EXPECT(held.build->getOutputDataTypes(&output, 1, inputs, kInputs) == 0 && output == DataType::kHALF);
    EXPECT(held.build->getOutputDataTypes(&output, 1, inputs, 4) != 0);
    EXPECT(last_message("PointRendSampleRoIs: takes a table, cells, a bias, boxes and points"));
    auto const takes = [&](std::vector<DynamicPluginTensorDesc> tensors, DataType to, int32_t position) {
        tensors.push_back(tensor({4, 5, 6}, to));
        return held.build->supportsFormatCombination(position, tensors.data(), kInputs, 1);
    };
    for (DataType const type : {DataType::kFLOAT, DataType::kHALF}) {
        for (int32_t position = 0; position <= kInputs; ++position) {
            EXPECT(takes(described(type), type, position));
            auto wrong = described(type);
            if (position < kInputs) {
                wrong[position].desc.type = DataType::kINT8;
            }
            EXPECT(!takes(wrong, DataType::kINT8, position));
            auto last = described(type);
            if (position < kInputs) {
                last[position].desc.format = TensorFormat::kHWC8;
                EXPECT(!takes(last, type, position));
            }
        }
    }
    for (int32_t const position : {1, 2, 5}) { // of the table's type
        auto mixed = described(DataType::kHALF);
        mixed[position % kInputs].desc.type = position == kInputs ? DataType::kHALF : DataType::kFLOAT;
        EXPECT(!takes(mixed, DataType::kFLOAT, position));
    }
    for (int32_t const position : {3, 4}) {
        auto halves = described(DataType::kHALF);
        halves[position].desc.type = DataType::kHALF;
        EXPECT(!takes(halves, DataType::kHALF, position));
    }
}

void check_shapes(Held const& held) {
    Extents extents;
    std::vector<DimsExprs> const sizes = {extents.of({2, 2, 3, 4}), extents.of({4, 7, 7, 6}), extents.of({4}),
                                          extents.of({4, 4}), extents.of({4, 5, 2})};
    DimsExprs shape{};
    EXPECT(held.build->getOutputShapes(sizes.data(), kInputs, nullptr, 0, &shape, 1, extents) == 0);
    EXPECT(shape.nbDims == 3 && shape.d[0]->getConstantValue() == 4 && shape.d[1]->getConstantValue() == 5);
    EXPECT(shape.d[2]->getConstantValue() == 6);
    for (int32_t i = 0; i < kInputs; ++i) {
        auto flat = sizes;
        flat[i] = extents.of({4, 5, 6, 7, 8});
        EXPECT(held.build->getOutputShapes(flat.data(), kInputs, nullptr, 0, &shape, 1, extents) != 0);
        EXPECT(last_message("PointRendSampleRoIs: the table has 4 dimensions"));
    }
}

void check_configured(Held const& held) {
    auto const out = tensor({4, 5, 6}, DataType::kFLOAT);
    auto const configured = [&](int32_t which, DynamicPluginTensorDesc const& changed) {
        auto inputs = described();
        inputs[which] = changed;
        return held.build->configurePlugin(inputs.data(), kInputs, &out, 1) == 0;
    };
    auto const real = [](std::initializer_list<int64_t> sizes) { return tensor(sizes, DataType::kFLOAT); };
    EXPECT(configured(0, real({2, 2, 3, 4})) && configured(0, real({-1, 2, 3, 4})) && configured(1, real({-1, 7, 7, 6})));
    EXPECT(!configured(0, real({2, 3, 4})) && last_message("the table has 4 dimensions"));
    EXPECT(!configured(3, real({4, 5})) && last_message("a box has four corners"));
    EXPECT(!configured(4, real({4, 5, 3})) && last_message("a point two coordinates"));
    EXPECT(!configured(3, real({5, 4})) && last_message("one number of RoIs"));
    EXPECT(!configured(4, real({5, 5, 2})) && last_message("one number of RoIs"));
    EXPECT(!configured(2, real({5})) && last_message("as many channels as the table"));
    EXPECT(!configured(1, real({4, 7, 7, 3})) && last_message("no fewer channels"));
    EXPECT(!configured(0, real({3, 2, 3, 4})) && last_message("the same number of RoIs"));
    auto const inputs = described();
    EXPECT(held.build->configurePlugin(inputs.data(), 4, &out, 1) != 0);
    EXPECT(held.build->getWorkspaceSize(inputs.data(), kInputs, &out, 1) == 0);
}

// A map of one channel, 1 to 4, under one box that is the map; cells of two channels, all 10 and all -20; a bias that
// the ReLU cuts at the second point, which lies in the middle of the first cell.
void check_results(Held const& held) {
    float const table[] = {1.0F, 2.0F, 3.0F, 4.0F};
    float const cells[] = {10.0F, -20.0F};
    float const bias[] = {-11.5F};
    float const box[] = {0.0F, 0.0F, 1.0F, 1.0F};
    float const points[] = {0.5F, 0.5F, 0.25F, 0.25F};
    auto const map = tensor({1, 2, 2, 1}, DataType::kFLOAT);
    PluginTensorDesc const inputs[] = {
        map.desc, tensor({1, 1, 1, 2}, DataType::kFLOAT).desc, tensor({1}, DataType::kFLOAT).desc,
        tensor({1, 4}, DataType::kFLOAT).desc, tensor({1, 2, 2}, DataType::kFLOAT).desc};
    void const* const from[] = {table, cells, bias, box, points};
    float rows[4] = {};
    void* const to[] = {rows};
    EXPECT(held.runtime->enqueue(inputs, &map.desc, from, to, nullptr, nullptr) == 0);
    EXPECT(rows[0] == 1.0F && rows[1] == -20.0F); // 10 - 11.5 + 2.5
    EXPECT(rows[2] == 0.0F && rows[3] == -11.25F); // the cell's hat is 0.75 squared
    void const* const nothing[] = {table, nullptr, bias, box, points};
    EXPECT(held.runtime->enqueue(inputs, &map.desc, nothing, to, nullptr, nullptr) != 0);
    EXPECT(last_message("PointRendSampleRoIs: invalid argument"));

    uint16_t const half_table[] = {0x3C00, 0x4000, 0x4200, 0x4400};
    uint16_t const half_cells[] = {0x4900, 0xCD00}; // 10 and -20
    uint16_t const half_bias[] = {0xC9C0};          // -11.5
    PluginTensorDesc halves[kInputs];
    for (int32_t i = 0; i < kInputs; ++i) {
        halves[i] = inputs[i];
        halves[i].type = i < 3 ? DataType::kHALF : DataType::kFLOAT;
    }
    void const* const half_from[] = {half_table, half_cells, half_bias, box, points};
    uint16_t half_rows[4] = {};
    void* const half_to[] = {half_rows};
    EXPECT(held.runtime->enqueue(halves, &halves[0], half_from, half_to, nullptr, nullptr) == 0);
    EXPECT(half_rows[0] == 0x3C00 && half_rows[1] == 0xCD00 && half_rows[2] == 0 && half_rows[3] == 0xC9A0);
}

} // namespace

void check_sample_rois() {
    Held const held = hold_op("PointRendSampleRoIs", Node(), 1);
    EXPECT(held.runtime->getFieldsToSerialize()->nbFields == 0);
    check_types(held);
    check_shapes(held);
    check_configured(held);
    check_results(held);
}
