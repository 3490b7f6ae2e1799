// The attributes of a node: as TensorRT hands them over, and as an engine keeps them.
//
// The attributes of one op are a struct with two functions:
//
//   std::array<nvinfer1::PluginField, N> fields() const noexcept;                  its fields, which point into it
//   char const* read(nvinfer1::PluginFieldCollection const* fields) noexcept;      fills it from a node
//
// The second returns a message where an attribute is missing or wrong, and nullptr where all are there.
#pragma once

#include "NvInferRuntime.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace pointrend {

template <class Attributes>
using FieldsOf = decltype(std::declval<Attributes const&>().fields());

// Of an op without attributes.
struct NoAttributes {
    std::array<nvinfer1::PluginField, 0> fields() const noexcept { return {}; }
    char const* read(nvinfer1::PluginFieldCollection const*) noexcept { return nullptr; }
};

inline nvinfer1::PluginFieldType field_type(int32_t) noexcept { return nvinfer1::PluginFieldType::kINT32; }
inline nvinfer1::PluginFieldType field_type(float) noexcept { return nvinfer1::PluginFieldType::kFLOAT32; }

// A field of one number. It points to `value`, which has to outlive it.
template <class T>
nvinfer1::PluginField field_of(char const* name, T const& value) noexcept {
    return nvinfer1::PluginField(name, &value, field_type(T{}), 1);
}

// Points to `fields`, which have to outlive it.
template <size_t N>
nvinfer1::PluginFieldCollection collection_of(std::array<nvinfer1::PluginField, N> const& fields) noexcept {
    nvinfer1::PluginFieldCollection collection{}; // 10.3 has no initialisers for it
    collection.nbFields = static_cast<int32_t>(N);
    collection.fields = fields.data();
    return collection;
}

// Reads an attribute of a node. False, and `value` as it was, unless the node has it as one number of that type.
template <class T>
bool read_field(nvinfer1::PluginFieldCollection const* fields, char const* name, T& value) noexcept {
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
        nvinfer1::PluginField const& field = fields->fields[i];
        bool const number = field.type == field_type(T{}) && field.length == 1 && field.data != nullptr;
        if (number && std::strcmp(field.name, name) == 0) {
            std::memcpy(&value, field.data, sizeof value);
            return true;
        }
    }
    return false;
}

} // namespace pointrend
