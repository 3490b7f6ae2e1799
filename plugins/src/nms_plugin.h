// PointRendNMS for TensorRT.
#pragma once

#include "fields.h"
#include "nms.h"
#include "plugin.h"

namespace pointrend {

struct NmsAttributes {
    int32_t k;
    NmsThresholds thresholds;
};

// Boxes (N, G, L, 4) FP32 and scores (N, G, L) FP32 -> flat indices (N, k) INT64 and their count (N,) INT64.
class NmsPlugin final : public Plugin<NmsPlugin> {
public:
    static constexpr char const* kName = "PointRendNMS";

    explicit NmsPlugin(NmsAttributes const& attributes) noexcept;
    NmsPlugin(NmsPlugin const& other) noexcept;

    int32_t getNbOutputs() const noexcept override { return 2; }
    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count, nvinfer1::DataType const* inputs,
                               int32_t input_count) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count, nvinfer1::DimsExprs const*, int32_t,
                            nvinfer1::DimsExprs* outputs, int32_t output_count,
                            nvinfer1::IExprBuilder& expressions) noexcept override;
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                   int32_t input_count, int32_t output_count) noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                            nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept override;
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                            nvinfer1::DynamicPluginTensorDesc const* outputs,
                            int32_t output_count) const noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descriptions, nvinfer1::PluginTensorDesc const*,
                    void const* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    NmsAttributes attributes_;
    nvinfer1::PluginField field_[3]; // point to attributes_
    nvinfer1::PluginFieldCollection fields_;
};

class NmsCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    NmsCreator() noexcept;
    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return NmsPlugin::kName; }
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
