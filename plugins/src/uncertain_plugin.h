// PointRendUncertain for TensorRT.
#pragma once

#include "fields.h"
#include "plugin.h"

namespace pointrend {

// Uncertainty (N, L) FP32 -> the k highest as flat indices (N, k) INT64.
class UncertainPlugin final : public Plugin<UncertainPlugin> {
public:
    static constexpr char const* kName = "PointRendUncertain";

    explicit UncertainPlugin(int32_t k) noexcept;
    UncertainPlugin(UncertainPlugin const& other) noexcept;

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
    int32_t k_;
    nvinfer1::PluginField field_; // points to k_
    nvinfer1::PluginFieldCollection fields_;
};

class UncertainCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    UncertainCreator() noexcept;
    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return UncertainPlugin::kName; }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &fields_; }
    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* name, nvinfer1::PluginFieldCollection const* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;

private:
    nvinfer1::PluginField field_;
    nvinfer1::PluginFieldCollection fields_{};
};

} // namespace pointrend
