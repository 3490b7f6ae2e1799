// PointRendRoIAlign for TensorRT.
#pragma once

#include "fields.h"
#include "plugin.h"
#include "roi_align.h"

namespace pointrend {

struct RoiAlignAttributes {
    int32_t first_level;
    int32_t levels;
    int32_t side;
};

// Boxes (N, R, 4) FP32 and four maps (N, C, h, w) FP32 or FP16 -> (N * R, C, side, side) of the maps' type. Maps
// beyond `levels` are not read: the node repeats the last one there.
class RoiAlignPlugin final : public Plugin<RoiAlignPlugin> {
public:
    static constexpr char const* kName = "PointRendRoIAlign";

    explicit RoiAlignPlugin(RoiAlignAttributes const& attributes) noexcept;
    RoiAlignPlugin(RoiAlignPlugin const& other) noexcept;

    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count, nvinfer1::DataType const* inputs,
                               int32_t input_count) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count, nvinfer1::DimsExprs const*, int32_t,
                            nvinfer1::DimsExprs* outputs, int32_t output_count,
                            nvinfer1::IExprBuilder& expressions) noexcept override;
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                   int32_t input_count, int32_t output_count) noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                            nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descriptions, nvinfer1::PluginTensorDesc const*,
                    void const* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    RoiAlignAttributes attributes_;
    nvinfer1::PluginField field_[3]; // point to attributes_
    nvinfer1::PluginFieldCollection fields_;
};

class RoiAlignCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    RoiAlignCreator() noexcept;
    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return RoiAlignPlugin::kName; }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &fields_; }
    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* name, nvinfer1::PluginFieldCollection const* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;

private:
    nvinfer1::PluginField field_[3];
    nvinfer1::PluginFieldCollection fields_{};
};

} // namespace pointrend
