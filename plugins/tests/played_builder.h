// The parts of TensorRT that plugins are handed, played by the tests: shapes, descriptions, a logger.
#pragma once

#include "NvInferRuntime.h"

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <string>

namespace played {

using namespace nvinfer1;

class Extent final : public IDimensionExpr, apiv::VDimensionExpr {
public:
    explicit Extent(int64_t value) : value_(value) { mImpl = this; }
    ~Extent() override = default;
    bool isConstant() const override { return true; }
    int64_t getConstantValue() const override { return value_; }
    bool isSizeTensor() const override { return false; }

private:
    int64_t value_;
};

class Extents final : public IExprBuilder, apiv::VExprBuilder {
public:
    Extents() { mImpl = this; }
    ~Extents() override = default;
    IDimensionExpr const* constant(int64_t value) override { return &made_.emplace_back(value); }
    IDimensionExpr const* operation(DimensionOperation what, IDimensionExpr const& a,
                                    IDimensionExpr const& b) override {
        return what == DimensionOperation::kPROD ? constant(a.getConstantValue() * b.getConstantValue()) : nullptr;
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&) override {
        return nullptr;
    }
    DimsExprs of(std::initializer_list<int64_t> sizes) {
        DimsExprs dims{};
        for (int64_t const size : sizes) {
            dims.d[dims.nbDims++] = constant(size);
        }
        return dims;
    }

private:
    std::deque<Extent> made_;
};

class Log final : public ILogger {
public:
    ~Log() override = default;
    void log(Severity, AsciiChar const* message) noexcept override { last = message; }
    std::string last;
};

class Finder final : public ILoggerFinder {
public:
    ~Finder() override = default;
    ILogger* findLogger() override { return &log; }
    Log log;
};

inline DynamicPluginTensorDesc tensor(std::initializer_list<int64_t> sizes, DataType type,
                               TensorFormat format = TensorFormat::kLINEAR) {
    DynamicPluginTensorDesc description{};
    for (int64_t const size : sizes) {
        description.desc.dims.d[description.desc.dims.nbDims++] = size;
    }
    description.min = description.max = description.desc.dims;
    description.desc.type = type;
    description.desc.format = format;
    return description;
}

} // namespace played
