// The creator of each plugin, for the library to hand to TensorRT. The plugins themselves are seen by their own
// files only.
#pragma once

#include "NvInferRuntime.h"

namespace pointrend {

nvinfer1::IPluginCreatorInterface& nms_creator() noexcept;
nvinfer1::IPluginCreatorInterface& refine_labels_creator() noexcept;
nvinfer1::IPluginCreatorInterface& refine_logits_creator() noexcept;
nvinfer1::IPluginCreatorInterface& roi_align_creator() noexcept;
nvinfer1::IPluginCreatorInterface& roi_align_fixed_creator() noexcept;
nvinfer1::IPluginCreatorInterface& sample_cells_creator() noexcept;
nvinfer1::IPluginCreatorInterface& sample_creator() noexcept;
nvinfer1::IPluginCreatorInterface& sample_rois_creator() noexcept;
nvinfer1::IPluginCreatorInterface& uncertain_creator() noexcept;
nvinfer1::IPluginCreatorInterface& upsample_labels_creator() noexcept;
nvinfer1::IPluginCreatorInterface& upsample_uncertainty_creator() noexcept;

} // namespace pointrend
