// The attributes of a node: as TensorRT hands them over, and as an engine keeps them.
#pragma once

#include "NvInferRuntime.h"

#include <cstdint>
#include <cstring>

namespace pointrend {

inline nvinfer1::PluginFieldType field_type(int32_t) noexcept { return nvinfer1::PluginFieldType::kINT32; }
inline nvinfer1::PluginFieldType field_type(float) noexcept { return nvinfer1::PluginFieldType::kFLOAT32; }

// A field of one number at `value`, which has to outlive it; of none where only the name is declared.
template <class T>
nvinfer1::PluginField field_of(char const* name, T const* value) noexcept {
    return nvinfer1::PluginField(name, value, field_type(T{}), 1);
}

inline nvinfer1::PluginFieldCollection collection_of(nvinfer1::PluginField const* fields, int32_t count) noexcept {
    nvinfer1::PluginFieldCollection collection{}; // 10.3 has no initialisers for it
    collection.nbFields = count;
    collection.fields = fields;
    return collection;
}

// Whether the node has the attribute, as one number of that type.
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
