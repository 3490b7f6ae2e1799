#include "held_plugin.h"
#include "more_plugins.h"

#include <cstdint>
#include <memory>

namespace {

using namespace nvinfer1;
using namespace played;

Node cells_node(int32_t height = 2, int32_t width = 4) {
    return Node().with("grid_height", height).with("grid_width", width);
}

void check_creator(IPluginCreatorV3One& made_by) {
    check_fields(made_by, cells_node());
    for (auto const& [height, width] : {std::pair{0, 4}, std::pair{4, -1}, std::pair{1 << 20, 1 << 20}}) {
        EXPECT(refused(made_by, cells_node(height, width), "needs its attributes grid_height and grid_width"));
    }
}

void check_answers(Held const& held) {
    DataType const inputs[] = {DataType::kHALF, DataType::kHALF, DataType::kINT64};
    DataType type{};
    EXPECT(held.build->getOutputDataTypes(&type, 1, inputs, 3) == 0 && type == DataType::kHALF);
    Extents extents;
    DimsExprs const shapes[] = {extents.of({2, 256, 4, 5}), extents.of({2, 19, 8, 9}), extents.of({2, 7})};
    DimsExprs const flat[] = {extents.of({2, 256, 20}), extents.of({2, 19, 8, 9}), extents.of({2, 7})};
    DimsExprs shape{};
    EXPECT(held.build->getOutputShapes(shapes, 3, nullptr, 0, &shape, 1, extents) == 0 && shape.nbDims == 3);
    int64_t const sizes[] = {2, 280, 7};
    for (int32_t i = 0; i < 3; ++i) {
        EXPECT(shape.d[i]->getConstantValue() == sizes[i]);
    }
    EXPECT(held.build->getOutputShapes(flat, 3, nullptr, 0, &shape, 1, extents) != 0 && last_message("4 dimensions"));

    auto const fine = [](DataType of, TensorFormat format = TensorFormat::kLINEAR) {
        return tensor({2, 256, 4, 5}, of, format);
    };
    auto const coarse = [](DataType of, TensorFormat format = TensorFormat::kLINEAR) {
        return tensor({2, 19, 8, 9}, of, format);
    };
    auto const indices = tensor({2, 7}, DataType::kINT64);
    auto const out = [](DataType of) { return tensor({2, 280, 7}, of); };
    constexpr auto kFloat = DataType::kFLOAT;
    constexpr auto kHalf = DataType::kHALF;
    constexpr auto kLast = TensorFormat::kHWC8;
    for (int32_t position = 0; position < 4; ++position) {
        EXPECT(supports(held, {fine(kFloat), coarse(kFloat), indices, out(kFloat)}, position, 3));
        EXPECT(supports(held, {fine(kHalf), coarse(kHalf, kLast), indices, out(kHalf)}, position, 3));
        EXPECT(supports(held, {fine(kHalf, kLast), coarse(kHalf), indices, out(kHalf)}, position, 3));
    }
    EXPECT(!supports(held, {fine(DataType::kINT8), coarse(kFloat), indices, out(kFloat)}, 0, 3));
    EXPECT(!supports(held, {fine(kFloat, kLast), coarse(kFloat), indices, out(kFloat)}, 0, 3));
    EXPECT(!supports(held, {fine(kFloat), coarse(kHalf), indices, out(kFloat)}, 1, 3));
    EXPECT(!supports(held, {fine(kFloat), coarse(kFloat), tensor({2, 7}, DataType::kINT32), out(kFloat)}, 2, 3));
    EXPECT(!supports(held, {fine(kHalf), coarse(kHalf), indices, out(kFloat)}, 3, 3));
    EXPECT(!supports(held, {fine(kHalf), coarse(kHalf), indices}, 0, 2));

    auto const configured = [&](DynamicPluginTensorDesc const& first, DynamicPluginTensorDesc const& second,
                                DynamicPluginTensorDesc const& third) {
        DynamicPluginTensorDesc const given[] = {first, second, third};
        auto const described = out(kFloat);
        return held.build->configurePlugin(given, 3, &described, 1) == 0;
    };
    EXPECT(configured(fine(kFloat), coarse(kFloat), indices));
    EXPECT(configured(fine(kFloat), coarse(kFloat), tensor({-1, -1}, DataType::kINT64)));
    EXPECT(!configured(fine(kFloat), coarse(kFloat), tensor({1, 7}, DataType::kINT64)));
    EXPECT(last_message("one batch size"));
    EXPECT(!configured(fine(kFloat), tensor({1, 19, 8, 9}, kFloat), indices) && last_message("one batch size"));
    EXPECT(!configured(fine(kFloat), indices, indices) && last_message("4 dimensions"));
    auto const described = out(kFloat);
    EXPECT(held.build->configurePlugin(&indices, 1, &described, 1) != 0 && last_message("takes fine features"));
    DynamicPluginTensorDesc const given[] = {fine(kFloat), coarse(kFloat), indices};
    EXPECT(held.build->getWorkspaceSize(given, 3, &described, 1) == 0);
}

// A row of two cells under a grid of two rows and four columns: its cells 1 and 6 lie inside, by a quarter or three.
void check_results(Held const& held) {
    float const fine[] = {4.0F, 8.0F};
    float const coarse[] = {16.0F, 32.0F};
    uint16_t const half_fine[] = {0x4400, 0x4800};
    alignas(16) uint16_t const last_coarse[2][8] = {{0x4C00}, {0x5000}};
    int64_t const indices[] = {1, 6};
    float out[8][2];
    _Float16 half_out[8][2];
    PluginTensorDesc const described[] = {tensor({1, 1, 1, 2}, DataType::kFLOAT).desc,
                                          tensor({1, 1, 1, 2}, DataType::kFLOAT).desc,
                                          tensor({1, 2}, DataType::kINT64).desc};
    PluginTensorDesc const half_described[] = {tensor({1, 1, 1, 2}, DataType::kHALF).desc,
                                               tensor({1, 1, 1, 2}, DataType::kHALF, TensorFormat::kHWC8).desc,
                                               tensor({1, 2}, DataType::kINT64).desc};
    void const* const from[] = {fine, coarse, indices};
    void const* const half_from[] = {half_fine, last_coarse, indices};
    void* to = out;
    void* half_to = half_out;
    EXPECT(held.runtime->enqueue(described, nullptr, from, &to, nullptr, nullptr) == 0);
    EXPECT(held.runtime->enqueue(half_described, nullptr, half_from, &half_to, nullptr, nullptr) == 0);
    // Rows 0 and 1 of the grid are a quarter of a cell above and below the one row's centre: 3/4 of its values.
    float const wanted[2][2] = {{0.75F * 5.0F, 0.75F * 7.0F}, {0.75F * 20.0F, 0.75F * 28.0F}};
    for (int32_t channel = 0; channel < 8; ++channel) {
        for (int32_t i = 0; i < 2; ++i) {
            float const value = channel < 2 ? wanted[channel][i] : 0.0F;
            EXPECT(out[channel][i] == value && static_cast<float>(half_out[channel][i]) == value);
        }
    }
    void const* const nothing[] = {fine, coarse, nullptr};
    EXPECT(held.runtime->enqueue(described, nullptr, nothing, &to, nullptr, nullptr) != 0);
    EXPECT(last_message("PointRendSampleCells: invalid argument"));
}

} // namespace

void check_sample_cells() {
    check_creator(*creator("PointRendSampleCells"));
    Held const held = hold_op("PointRendSampleCells", cells_node(), 1);
    check_answers(held);
    check_results(held);
}
