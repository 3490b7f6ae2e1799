// What all plugins share: how TensorRT calls them and their creators. A plugin itself is its attributes and the
// few functions that Plugin declares as pure virtual.
#pragma once

#include "fields.h"
#include "log.h"

#include "NvInferRuntime.h"

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <new>

namespace pointrend {

constexpr char const* kNamespace = "pointrend";
constexpr char const* kVersion = "1";

// A plugin may return any number but 0 for an error.
constexpr int32_t kFailed = -1;

// Answers TensorRT for one plugin. `Derived` has these constants:
//
//   static constexpr char const* kName;   the op
//   static constexpr char const* kArity;  the message where the number of inputs or outputs is wrong
//
// `AttributesOf` is a struct of the node's attributes as fields.h describes it. The functions that a plugin
// implements are called with the right numbers of inputs and outputs only. A reason is a message for the log, or
// nullptr where nothing is wrong. Nothing here throws.
template <class Derived, class AttributesOf, int32_t input_count_of, int32_t output_count_of>
class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime {
public:
    using Attributes = AttributesOf;
    static constexpr int32_t kInputs = input_count_of;
    static constexpr int32_t kOutputs = output_count_of;

    // A plugin with these attributes, nullptr where there is no memory.
    static Derived* made(Attributes const& attributes) noexcept {
        auto* const plugin = new (std::nothrow) Derived;
        if (plugin != nullptr) {
            plugin->attributes_ = attributes;
        }
        return plugin;
    }

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
        switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE:
            return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD:
            return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME:
            return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    nvinfer1::IPluginV3* clone() noexcept override {
        return new (std::nothrow) Derived(static_cast<Derived const&>(*this));
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return Derived::kName; }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t getNbOutputs() const noexcept override { return kOutputs; }

    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count, nvinfer1::DataType const* inputs,
                               int32_t input_count) const noexcept override {
        if (!arity(input_count, output_count)) {
            return answer(Derived::kArity);
        }
        for (int32_t i = 0; i < kOutputs; ++i) {
            outputs[i] = output_type(i, inputs);
        }
        return 0;
    }

    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count, nvinfer1::DimsExprs const*, int32_t,
                            nvinfer1::DimsExprs* outputs, int32_t output_count,
                            nvinfer1::IExprBuilder& expressions) noexcept override {
        return answer(arity(input_count, output_count) ? set_shapes(inputs, outputs, expressions) : Derived::kArity);
    }

    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                   int32_t input_count, int32_t output_count) noexcept override {
        return arity(input_count, output_count) && takes(position, tensors);
    }

    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                            nvinfer1::DynamicPluginTensorDesc const*, int32_t output_count) noexcept override {
        return answer(arity(input_count, output_count) ? wrong_with(inputs) : Derived::kArity);
    }

    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t,
                            nvinfer1::DynamicPluginTensorDesc const*, int32_t) const noexcept override {
        return workspace_bytes(inputs);
    }

    int32_t onShapeChange(nvinfer1::PluginTensorDesc const*, int32_t, nvinfer1::PluginTensorDesc const*,
                          int32_t) noexcept override {
        return 0;
    }

    int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descriptions, nvinfer1::PluginTensorDesc const*,
                    void const* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override {
        cudaError_t const error = launch(input_descriptions, inputs, outputs, workspace, stream);
        return error == cudaSuccess ? 0 : answer(cudaGetErrorString(error));
    }

    // The fields point into this plugin, which may be a copy of the one whose fields were read last.
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override {
        fields_ = attributes_.fields();
        collection_ = collection_of(fields_);
        return &collection_;
    }

protected:
    Attributes const& attributes() const noexcept { return attributes_; }

private:
    // Sets the shape of each output; returns a reason.
    virtual char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                                   nvinfer1::IExprBuilder& expressions) const noexcept = 0;

    // The type of an output, from those of the inputs.
    virtual nvinfer1::DataType output_type(int32_t output, nvinfer1::DataType const* inputs) const noexcept = 0;

    // Whether the tensor at `position`, counted from the inputs on, has a type and a layout that the kernels take.
    // Tensors before it are settled.
    virtual bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept = 0;

    // A reason, from the ranges of the inputs' shapes. An extent that is not known yet is -1.
    virtual char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept = 0;

    // Bytes of workspace for the largest inputs.
    virtual size_t workspace_bytes(nvinfer1::DynamicPluginTensorDesc const*) const noexcept { return 0; }

    // Launches the kernels. The workspace has workspace_bytes of the largest inputs, or more.
    virtual cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs,
                               void* const* outputs, void* workspace, cudaStream_t stream) const noexcept = 0;

    static bool arity(int32_t input_count, int32_t output_count) noexcept {
        return input_count == kInputs && output_count == kOutputs;
    }

    // A reason as TensorRT wants it: logged, and a number.
    static int32_t answer(char const* reason) noexcept {
        if (reason == nullptr) {
            return 0;
        }
        log_error(Derived::kName, reason);
        return kFailed;
    }

    Attributes attributes_{};
    FieldsOf<Attributes> fields_{};
    nvinfer1::PluginFieldCollection collection_{};
};

// Makes a plugin from a node of the graph, or from what an engine keeps of one.
template <class PluginClass>
class Creator final : public nvinfer1::IPluginCreatorV3One {
public:
    using Attributes = typename PluginClass::Attributes;

    // Only the names and types of the fields are declared: their values are those of no node.
    Creator() noexcept : fields_(Attributes{}.fields()), collection_(collection_of(fields_)) {
        for (nvinfer1::PluginField& field : fields_) {
            field.data = nullptr;
        }
    }

    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return PluginClass::kName; }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }

    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const*, nvinfer1::PluginFieldCollection const* fields,
                                      nvinfer1::TensorRTPhase) noexcept override {
        Attributes attributes{};
        if (char const* const reason = attributes.read(fields)) {
            log_error(PluginClass::kName, reason);
            return nullptr;
        }
        return PluginClass::made(attributes);
    }

private:
    FieldsOf<Attributes> fields_;
    nvinfer1::PluginFieldCollection collection_;
};

inline bool linear(nvinfer1::PluginTensorDesc const& tensor) noexcept {
    return tensor.format == nvinfer1::TensorFormat::kLINEAR;
}

inline bool float_or_half(nvinfer1::DataType type) noexcept {
    return type == nvinfer1::DataType::kFLOAT || type == nvinfer1::DataType::kHALF;
}

// A dimension as the kernels take it: one that is too large stays too large.
inline int32_t extent(int64_t size) noexcept { return size > INT32_MAX ? INT32_MAX : static_cast<int32_t>(size); }

// Whether two dimensions may be one; a dimension not known yet is -1.
inline bool same_extent(int64_t a, int64_t b) noexcept { return a == b || a == -1 || b == -1; }

} // namespace pointrend
