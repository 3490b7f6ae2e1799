// The plugin classes on a CPU: TensorRT's headers, a builder played by this file, and kernels under the
// emulator. `check_plugins` walks through what TensorRT calls and returns the number of wrong answers.
#include "held_plugin.h"
#include "more_plugins.h"
#include "log.h"
#include "pointrend_plugins.h"

#include "NvInferRuntime.h"
#include "NvInferVersion.h"

#include <cstdlib>
#include <cstring>
#include <memory>

extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

namespace {

using namespace nvinfer1;
using namespace played;

int32_t host_version = NV_TENSORRT_MAJOR * 10000;

void check_sample() {
    IPluginCreatorV3One* const made_by = creator("PointRendSample");
    EXPECT(made_by != nullptr && made_by->getFieldNames()->nbFields == 0);
    Held const held = hold(made_by->createPlugin("node", nullptr, TensorRTPhase::kBUILD));
    EXPECT(std::strcmp(held.core->getPluginName(), "PointRendSample") == 0);
    EXPECT(held.build->getNbOutputs() == 1);
    EXPECT(held.runtime->getFieldsToSerialize()->nbFields == 0);

    DataType const inputs[] = {DataType::kHALF, DataType::kFLOAT};
    DataType output{};
    EXPECT(held.build->getOutputDataTypes(&output, 1, inputs, 2) == 0 && output == DataType::kHALF);
    EXPECT(held.build->getOutputDataTypes(&output, 1, inputs, 1) != 0);

    Extents extents;
    DimsExprs const shapes[] = {extents.of({2, 3, 8, 9}), extents.of({2, 5, 2})};
    DimsExprs const flat[] = {extents.of({2, 3, 8}), extents.of({2, 5, 2})};
    DimsExprs shape{};
    EXPECT(held.build->getOutputShapes(shapes, 2, nullptr, 0, &shape, 1, extents) == 0 && shape.nbDims == 3);
    EXPECT(shape.d[0]->getConstantValue() == 2 && shape.d[1]->getConstantValue() == 3);
    EXPECT(shape.d[2]->getConstantValue() == 5);
    EXPECT(held.build->getOutputShapes(flat, 2, nullptr, 0, &shape, 1, extents) != 0);
    EXPECT(finder.log.last.find("PointRendSample: features have 4 dimensions") == 0);
    EXPECT(held.build->getOutputShapes(shapes, 1, nullptr, 0, &shape, 1, extents) != 0);

    auto const features = tensor({1, 1, 2, 2}, DataType::kFLOAT);
    auto const half = tensor({1, 1, 2, 2}, DataType::kHALF);
    auto const int8 = tensor({1, 1, 2, 2}, DataType::kINT8);
    auto const last = tensor({1, 1, 2, 2}, DataType::kHALF, TensorFormat::kHWC8);
    auto const float_last = tensor({1, 1, 2, 2}, DataType::kFLOAT, TensorFormat::kHWC8);
    auto const last_out = tensor({1, 1, 2}, DataType::kHALF, TensorFormat::kHWC8);
    auto const half_out = tensor({1, 1, 2}, DataType::kHALF);
    auto const points = tensor({1, 2, 2}, DataType::kFLOAT);
    auto const half_points = tensor({1, 2, 2}, DataType::kHALF);
    auto const out = tensor({1, 1, 2}, DataType::kFLOAT);
    for (int32_t position = 0; position < 3; ++position) {
        EXPECT(supports(held, {features, points, out}, position, 2));
    }
    EXPECT(supports(held, {half, points, out}, 0, 2) && !supports(held, {half, points, out}, 2, 2));
    EXPECT(!supports(held, {int8, points, out}, 0, 2) && !supports(held, {float_last, points, out}, 0, 2));
    EXPECT(supports(held, {last, points, half_out}, 0, 2) && supports(held, {last, points, half_out}, 2, 2));
    EXPECT(!supports(held, {last, points, last_out}, 2, 2) && !supports(held, {last, points, out}, 2, 2));
    EXPECT(!supports(held, {features, half_points, out}, 1, 2));
    EXPECT(!supports(held, {features, points, out}, 0, 1));

    DynamicPluginTensorDesc const good[] = {features, points};
    DynamicPluginTensorDesc const threes[] = {features, tensor({1, 2, 3}, DataType::kFLOAT)};
    DynamicPluginTensorDesc const batches[] = {features, tensor({2, 2, 2}, DataType::kFLOAT)};
    DynamicPluginTensorDesc const unknown[] = {features, tensor({-1, 2, 2}, DataType::kFLOAT)};
    EXPECT(held.build->configurePlugin(good, 2, &out, 1) == 0);
    EXPECT(held.build->configurePlugin(unknown, 2, &out, 1) == 0);
    EXPECT(held.build->configurePlugin(threes, 2, &out, 1) != 0);
    EXPECT(held.build->configurePlugin(batches, 2, &out, 1) != 0);
    EXPECT(held.build->configurePlugin(good, 1, &out, 1) != 0);
    EXPECT(held.build->getWorkspaceSize(good, 2, &out, 1) == 0);
    EXPECT(held.runtime->onShapeChange(&features.desc, 2, &out.desc, 1) == 0);

    float const map[] = {1.0F, 2.0F, 3.0F, 4.0F};
    float const at[] = {0.5F, 0.5F, 0.25F, 0.75F};
    auto const sample = [&](DynamicPluginTensorDesc const& described, void const* from, void const* points_of,
                            DynamicPluginTensorDesc const& to_described, void* to) {
        PluginTensorDesc const inputs_described[] = {described.desc, points.desc};
        void const* const from_both[] = {from, points_of};
        return held.runtime->enqueue(inputs_described, &to_described.desc, from_both, &to, nullptr, nullptr);
    };
    float sampled[2] = {};
    EXPECT(sample(features, map, at, out, sampled) == 0 && sampled[0] == 2.5F && sampled[1] == 3.0F);
    uint16_t const half_map[] = {0x3C00, 0x4000, 0x4200, 0x4400};
    uint16_t halves[2] = {};
    EXPECT(sample(half, half_map, at, half_out, halves) == 0 && halves[0] == 0x4100 && halves[1] == 0x4200);
    alignas(16) uint16_t const last_map[4][8] = {{0x3C00}, {0x4000}, {0x4200}, {0x4400}};
    halves[0] = halves[1] = 0;
    EXPECT(sample(last, last_map, at, half_out, halves) == 0 && halves[0] == 0x4100 && halves[1] == 0x4200);
    EXPECT(sample(features, nullptr, nullptr, out, sampled) != 0);
    EXPECT(finder.log.last == "PointRendSample: invalid argument");
}

void check_uncertain() {
    IPluginCreatorV3One* const made_by = creator("PointRendUncertain");
    PluginFieldCollection const& names = *made_by->getFieldNames();
    EXPECT(names.nbFields == 1 && std::strcmp(names.fields[0].name, "k") == 0);
    int32_t k = 2;
    PluginField field("k", &k, PluginFieldType::kINT32, 1);
    PluginFieldCollection fields{};
    fields.nbFields = 1;
    fields.fields = &field;
    EXPECT(made_by->createPlugin("node", nullptr, TensorRTPhase::kBUILD) == nullptr);
    EXPECT(finder.log.last.find("PointRendUncertain: needs its attribute k") == 0);
    k = 0;
    EXPECT(made_by->createPlugin("node", &fields, TensorRTPhase::kBUILD) == nullptr);
    k = 2;
    field.type = PluginFieldType::kFLOAT32;
    EXPECT(made_by->createPlugin("node", &fields, TensorRTPhase::kBUILD) == nullptr);
    field.type = PluginFieldType::kINT32;
    Held const held = hold(made_by->createPlugin("node", &fields, TensorRTPhase::kRUNTIME));
    PluginFieldCollection const& kept = *held.runtime->getFieldsToSerialize();
    EXPECT(kept.nbFields == 1 && std::strcmp(kept.fields[0].name, "k") == 0);
    EXPECT(*static_cast<int32_t const*>(kept.fields[0].data) == 2 && kept.fields[0].data != &k);

    DataType const input = DataType::kFLOAT;
    DataType output{};
    EXPECT(held.build->getOutputDataTypes(&output, 1, &input, 1) == 0 && output == DataType::kINT64);
    EXPECT(held.build->getOutputDataTypes(&output, 1, &input, 2) != 0);
    Extents extents;
    DimsExprs const row = extents.of({3, 8});
    DimsExprs const map = extents.of({3, 2, 4});
    DimsExprs shape{};
    EXPECT(held.build->getOutputShapes(&row, 1, nullptr, 0, &shape, 1, extents) == 0 && shape.nbDims == 2);
    EXPECT(shape.d[0]->getConstantValue() == 3 && shape.d[1]->getConstantValue() == 2);
    EXPECT(held.build->getOutputShapes(&map, 1, nullptr, 0, &shape, 1, extents) != 0);
    EXPECT(held.build->getOutputShapes(&row, 2, nullptr, 0, &shape, 1, extents) != 0);

    auto const values = tensor({1, 5}, DataType::kFLOAT);
    auto const indices = tensor({1, 2}, DataType::kINT64);
    EXPECT(supports(held, {values, indices}, 0, 1) && supports(held, {values, indices}, 1, 1));
    EXPECT(!supports(held, {tensor({1, 5}, DataType::kHALF), indices}, 0, 1));
    EXPECT(!supports(held, {values, tensor({1, 2}, DataType::kINT32)}, 1, 1));
    EXPECT(!supports(held, {values, values, indices}, 0, 2));
    auto const short_row = tensor({1, 1}, DataType::kFLOAT);
    EXPECT(held.build->configurePlugin(&values, 1, &indices, 1) == 0);
    EXPECT(held.build->configurePlugin(&short_row, 1, &indices, 1) != 0);
    EXPECT(held.build->configurePlugin(&values, 2, &indices, 1) != 0);

    size_t const bytes = held.build->getWorkspaceSize(&values, 1, &indices, 1);
    EXPECT(bytes == pointrend_uncertain_workspace(1, 5));
    std::unique_ptr<void, void (*)(void*)> const workspace(std::aligned_alloc(256, bytes), std::free);
    float const uncertainty[] = {0.0F, 3.0F, 1.0F, 3.0F, 3.0F};
    int64_t chosen[2] = {};
    void const* const from[] = {uncertainty};
    void* const to[] = {chosen};
    EXPECT(held.runtime->enqueue(&values.desc, &indices.desc, from, to, workspace.get(), nullptr) == 0);
    EXPECT(chosen[0] == 1 && chosen[1] == 3);
    EXPECT(held.runtime->enqueue(&values.desc, &indices.desc, from, to, nullptr, nullptr) != 0);
    EXPECT(finder.log.last == "PointRendUncertain: invalid argument");
}

// Messages reach the logger of the version compiled for, and of no other.
void check_finder() {
    for (int32_t const version : {NV_TENSORRT_MAJOR * 10000 + 399, NV_TENSORRT_MAJOR * 10000 + 10000, 10701}) {
        host_version = version;
        finder.log.last.clear();
        setLoggerFinder(&finder);
        pointrend::log_error("op", "message");
        EXPECT(finder.log.last == (version / 10000 == NV_TENSORRT_MAJOR ? "op: message" : ""));
    }
    setLoggerFinder(nullptr);
    pointrend::log_error("op", "message");
    EXPECT(finder.log.last.empty());
    host_version = NV_TENSORRT_MAJOR * 10000;
}

} // namespace

extern "C" {

POINTREND_API int32_t getInferLibVersion() noexcept { return host_version; }

// Returns the number of wrong answers; with `plant` one more, from a check that always fails.
POINTREND_API int check_plugins(int plant) {
    wrong_answers = 0;
    check_finder();
    setLoggerFinder(&finder);
    check_sample();
    check_uncertain();
    check_roi_align();
    check_nms();
    check_upsample();
    check_refine();
    check_sample_cells();
    check_sample_rois();
    EXPECT(pointrend_tensorrt_version() / 10000 == NV_TENSORRT_MAJOR);
    EXPECT(plant == 0);
    return wrong_answers;
}

} // extern "C"
