// The attribute of the ops that upsample.
#pragma once

#include "fields.h"
#include "upsample.h"

namespace pointrend {

struct ScaleAttributes {
    int32_t scale;

    std::array<nvinfer1::PluginField, 1> fields() const noexcept { return {field_of("scale", scale)}; }

    char const* read(nvinfer1::PluginFieldCollection const* fields) noexcept {
        return read_field(fields, "scale", scale) && is_upsample_scale(scale)
                   ? nullptr
                   : "needs its attribute scale, an integer: 2, 4, 8 or 16";
    }
};

} // namespace pointrend
