#include "held_plugin.h"
#include "more_plugins.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace {

using namespace nvinfer1;
using namespace played;

DynamicPluginTensorDesc feature_map(int64_t n, int64_t c, int64_t h, int64_t w) {
    return tensor({n, c, h, w}, DataType::kFLOAT);
}

Node roi_node(int32_t first_level = 2, int32_t levels = 2, int32_t side = 1) {
    return Node().with("first_level", first_level).with("levels", levels).with("side", side);
}

void check_roi_creator(IPluginCreatorV3One& creator) {
    check_fields(creator, roi_node());
    for (Node const& wrong : {roi_node(-1, 2, 1), roi_node(12, 1, 1), roi_node(2147483647, 4, 1)}) {
        EXPECT(refused(creator, wrong, "PointRendRoIAlign: the levels lie within 0 to 11"));
    }
    for (int32_t const levels : {0, 5, -2147483647}) {
        EXPECT(refused(creator, roi_node(2, levels, 1), "PointRendRoIAlign: levels is 1 to 4"));
    }
    for (int32_t const side : {0, 65}) {
        EXPECT(refused(creator, roi_node(2, 2, side), "PointRendRoIAlign: side is 1 to 64"));
    }
}

void check_fixed_roi_creator(IPluginCreatorV3One& creator) {
    check_fields(creator, roi_node().with("sampling_ratio", 2));
    for (int32_t const ratio : {-1, 0, 17}) {
        EXPECT(refused(creator, roi_node().with("sampling_ratio", ratio),
                       "PointRendRoIAlignFixed: sampling_ratio is 1 to 16"));
    }
    EXPECT(refused(creator, roi_node(2, 5, 1).with("sampling_ratio", 2), "PointRendRoIAlignFixed: levels is 1 to 4"));
}

void check_roi_types(Held const& held) {
    DataType const inputs[] = {DataType::kFLOAT, DataType::kHALF, DataType::kHALF, DataType::kHALF, DataType::kHALF};
    DataType output{};
    EXPECT(held.build->getOutputDataTypes(&output, 1, inputs, 5) == 0 && output == DataType::kHALF);
    EXPECT(held.build->getOutputDataTypes(&output, 1, inputs, 4) != 0);
    EXPECT(last_message("PointRendRoIAlign: takes boxes and four feature maps"));

    auto const boxes = tensor({1, 2, 4}, DataType::kFLOAT);
    auto const half_boxes = tensor({1, 2, 4}, DataType::kHALF);
    auto const map = feature_map(1, 1, 4, 4);
    auto const half = tensor({1, 1, 4, 4}, DataType::kHALF);
    auto const int8 = tensor({1, 1, 4, 4}, DataType::kINT8);
    auto const last = tensor({1, 1, 4, 4}, DataType::kHALF, TensorFormat::kHWC8);
    for (int32_t position = 0; position < 6; ++position) {
        EXPECT(supports(held, {boxes, map, map, map, map, map}, position, 5));
        EXPECT(supports(held, {boxes, half, half, half, half, half}, position, 5));
    }
    EXPECT(!supports(held, {half_boxes, map, map, map, map, map}, 0, 5));
    EXPECT(!supports(held, {boxes, int8, int8, int8, int8, int8}, 1, 5));
    EXPECT(!supports(held, {boxes, last, last, last, last, last}, 1, 5));
    EXPECT(!supports(held, {boxes, map, half, map, map, map}, 2, 5));
    EXPECT(!supports(held, {boxes, half, half, half, half, map}, 5, 5));
    EXPECT(!supports(held, {boxes, map, map, map, map, map}, 0, 4));
}

void check_roi_shapes(Held const& held) {
    Extents extents;
    DimsExprs const map = extents.of({2, 3, 8, 9});
    DimsExprs const shapes[] = {extents.of({2, 5, 4}), map, map, map, map};
    DimsExprs const flat[] = {extents.of({10, 4}), map, map, map, map};
    DimsExprs const no_map[] = {extents.of({2, 5, 4}), map, map, map, extents.of({3, 8, 9})};
    DimsExprs shape{};
    EXPECT(held.build->getOutputShapes(shapes, 5, nullptr, 0, &shape, 1, extents) == 0 && shape.nbDims == 4);
    EXPECT(shape.d[0]->getConstantValue() == 10 && shape.d[1]->getConstantValue() == 3);
    EXPECT(shape.d[2]->getConstantValue() == 1 && shape.d[3]->getConstantValue() == 1);
    EXPECT(held.build->getOutputShapes(flat, 5, nullptr, 0, &shape, 1, extents) != 0);
    EXPECT(last_message("PointRendRoIAlign: boxes have 3 dimensions"));
    EXPECT(held.build->getOutputShapes(no_map, 5, nullptr, 0, &shape, 1, extents) != 0);
    EXPECT(held.build->getOutputShapes(shapes, 4, nullptr, 0, &shape, 1, extents) != 0);

    auto const boxes = tensor({1, 2, 4}, DataType::kFLOAT);
    auto const fine = feature_map(1, 3, 4, 4);
    auto const coarse = feature_map(1, 3, 2, 2);
    auto const out = feature_map(2, 3, 1, 1);
    auto const configured = [&](std::vector<DynamicPluginTensorDesc> const& inputs) {
        return held.build->configurePlugin(inputs.data(), static_cast<int32_t>(inputs.size()), &out, 1) == 0;
    };
    auto const odd = feature_map(7, 7, 1, 1); // what is not read may be anything
    EXPECT(configured({boxes, fine, coarse, coarse, coarse}) && configured({boxes, fine, coarse, odd, odd}));
    EXPECT(configured({tensor({-1, -1, 4}, DataType::kFLOAT), feature_map(-1, 3, -1, -1), coarse, odd, odd}));
    EXPECT(!configured({boxes, fine, coarse, coarse}) && last_message("takes boxes and four feature maps"));
    EXPECT(!configured({tensor({2, 4}, DataType::kFLOAT), fine, coarse, odd, odd}) && last_message("3 dimensions"));
    EXPECT(!configured({boxes, fine, tensor({1, 3, 4}, DataType::kFLOAT), odd, odd}) && last_message("3 dimensions"));
    EXPECT(!configured({tensor({1, 2, 5}, DataType::kFLOAT), fine, coarse, odd, odd}) && last_message("four corners"));
    EXPECT(!configured({tensor({2, 2, 4}, DataType::kFLOAT), fine, coarse, odd, odd}) && last_message("batch size"));
    EXPECT(!configured({boxes, fine, feature_map(2, 3, 2, 2), odd, odd}) && last_message("as many channels"));
    EXPECT(!configured({boxes, fine, feature_map(1, 4, 2, 2), odd, odd}) && last_message("as many channels"));
    EXPECT(!configured({boxes, fine, feature_map(1, 3, 11000, 1), odd, odd}) && last_message("11000 together"));
    EXPECT(!configured({tensor({1, int64_t{1} << 33, 4}, DataType::kFLOAT), feature_map(1, 0, 4, 4), coarse, odd, odd}));
    EXPECT(held.build->getWorkspaceSize(&boxes, 5, &out, 1) == 0);
}

// Maps of a ramp along x on level 2 and of twos on level 3, of a picture of 16 x 16 pixels. One box lies in its
// middle; the other, on level 3, is of 300 pixels and mostly beside the map.
void check_roi_results(Held const& held) {
    auto const boxes = tensor({1, 2, 4}, DataType::kFLOAT);
    float const corners[] = {6.0F, 6.0F, 10.0F, 10.0F, -142.0F, -142.0F, 158.0F, 158.0F};
    float fine[16];
    for (int i = 0; i < 16; ++i) {
        fine[i] = static_cast<float>(i % 4);
    }
    float const coarse[] = {2.0F, 2.0F, 2.0F, 2.0F};
    float pooled[2] = {};
    void const* const from[] = {corners, fine, coarse, nullptr, nullptr};
    void* const to[] = {pooled};
    auto const level_2 = feature_map(1, 1, 4, 4);
    auto const level_3 = feature_map(1, 1, 2, 2);
    PluginTensorDesc const described[] = {boxes.desc, level_2.desc, level_3.desc, level_3.desc, level_3.desc};
    EXPECT(held.runtime->enqueue(described, &level_2.desc, from, to, nullptr, nullptr) == 0);
    // 38 x 38 samples 0.987 cells apart, of which 4 x 4 lie within a cell of the map
    EXPECT(pooled[0] == 1.5F && std::fabs(pooled[1] - 2.0F * 16.0F / 1444.0F) < 1e-6F);

    uint16_t half_fine[16];
    for (int i = 0; i < 16; ++i) {
        half_fine[i] = i % 4 < 2 ? 0x3C00 : 0x4000; // 1 and 2
    }
    uint16_t half_pooled[2] = {};
    void const* const half_from[] = {corners, half_fine, half_fine, nullptr, nullptr};
    void* const half_to[] = {half_pooled};
    auto const half = tensor({1, 1, 4, 4}, DataType::kHALF);
    PluginTensorDesc const half_described[] = {boxes.desc, half.desc, half.desc, half.desc, half.desc};
    EXPECT(held.runtime->enqueue(half_described, &half.desc, half_from, half_to, nullptr, nullptr) == 0);
    EXPECT(half_pooled[0] == 0x3E00);

    void const* const no_map[] = {corners, fine, nullptr, nullptr, nullptr};
    EXPECT(held.runtime->enqueue(described, &level_2.desc, no_map, to, nullptr, nullptr) != 0);
    EXPECT(last_message("PointRendRoIAlign: invalid argument"));
}

// A ramp along x, and 2 x 2 samples at a quarter and three quarters of each side of a box: of one of 8 pixels, of
// one that the map's first cell cuts short, and of one without area.
void check_fixed_roi_results(Held const& held) {
    auto const boxes = tensor({1, 3, 4}, DataType::kFLOAT);
    float const corners[] = {4.0F, 4.0F, 12.0F, 12.0F, 0.0F, 0.0F, 8.0F, 8.0F, 8.0F, 8.0F, 8.0F, 8.0F};
    float ramp[16];
    for (int i = 0; i < 16; ++i) {
        ramp[i] = static_cast<float>(i % 4);
    }
    float pooled[3] = {};
    void const* const from[] = {corners, ramp, ramp, nullptr, nullptr};
    void* const to[] = {pooled};
    auto const map = feature_map(1, 1, 4, 4);
    PluginTensorDesc const described[] = {boxes.desc, map.desc, map.desc, map.desc, map.desc};
    EXPECT(held.runtime->enqueue(described, &map.desc, from, to, nullptr, nullptr) == 0);
    EXPECT(pooled[0] == 1.5F && pooled[1] == 0.5F && pooled[2] == 1.5F);
}

} // namespace

void check_roi_align() {
    Held const held = hold_op("PointRendRoIAlign", roi_node(), 1);
    check_roi_creator(*creator("PointRendRoIAlign"));
    check_roi_types(held);
    check_roi_shapes(held);
    check_roi_results(held);
    check_fixed_roi_creator(*creator("PointRendRoIAlignFixed"));
    check_fixed_roi_results(hold_op("PointRendRoIAlignFixed", roi_node().with("sampling_ratio", 2), 1));
}
