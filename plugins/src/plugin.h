// What the plugins have in common: capabilities, names, and no tactics.
#pragma once

#include "NvInferRuntime.h"

#include <cstdint>
#include <new>

namespace pointrend {

constexpr char const* kNamespace = "pointrend";
constexpr char const* kVersion = "1";

// The capabilities, shared answers and copying of one plugin; `Derived` has a copy constructor and
// `static constexpr char const* kName`. Nothing here throws.
template <class Derived>
class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime {
public:
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

    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return Derived::kName; }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t getNbOutputs() const noexcept override { return 1; }

    int32_t onShapeChange(nvinfer1::PluginTensorDesc const*, int32_t, nvinfer1::PluginTensorDesc const*,
                          int32_t) noexcept override {
        return 0;
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
};

inline bool linear(nvinfer1::PluginTensorDesc const& tensor) noexcept {
    return tensor.format == nvinfer1::TensorFormat::kLINEAR;
}

// A dimension as the kernels take it: one that is too large stays too large.
inline int32_t extent(int64_t size) noexcept { return size > INT32_MAX ? INT32_MAX : static_cast<int32_t>(size); }

// Whether two dimensions may be one; a dimension not known yet is -1.
inline bool same_extent(int64_t a, int64_t b) noexcept { return a == b || a == -1 || b == -1; }

// A plugin may return any number but 0 for an error.
constexpr int32_t kFailed = -1;

} // namespace pointrend
