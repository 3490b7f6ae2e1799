// PointRendSampleRoIs for TensorRT.
#include "creators.h"
#include "plugin.h"
#include "sample_rois.h"

#include <cuda_fp16.h>

namespace pointrend {

using nvinfer1::DataType;

namespace {

enum Input : int32_t { kTable = 0, kCells = 1, kBias = 2, kBoxes = 3, kPoints = 4 };

constexpr int32_t kRanks[] = {4, 4, 1, 2, 3};
constexpr char const* kShapes =
    "the table has 4 dimensions, (N, H, W, C), the cells 4, (R, h, w, D), the bias 1, (C), the boxes 2, (R, 4), and "
    "the points 3, (R, P, 2)";

// Table (N, H, W, C), cells (R, h, w, D) and bias (C) FP32 or FP16, boxes (R, 4) and points (R, P, 2) FP32 ->
// (R, P, D) of the table's type.
struct SampleRoisPlugin final : Plugin<SampleRoisPlugin, NoAttributes, 5, 1> {
    static constexpr char const* kName = "PointRendSampleRoIs";
    static constexpr char const* kArity = "takes a table, cells, a bias, boxes and points, and has one output";

    char const* set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                           nvinfer1::IExprBuilder&) const noexcept override {
        for (int32_t i = 0; i < kInputs; ++i) {
            if (inputs[i].nbDims != kRanks[i]) {
                return kShapes;
            }
        }
        outputs[0].nbDims = 3;
        outputs[0].d[0] = inputs[kPoints].d[0];
        outputs[0].d[1] = inputs[kPoints].d[1];
        outputs[0].d[2] = inputs[kCells].d[3];
        return nullptr;
    }

    DataType output_type(int32_t, DataType const* inputs) const noexcept override { return inputs[kTable]; }

    bool takes(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors) const noexcept override {
        nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
        if (!linear(tensor)) {
            return false;
        }
        switch (position) {
        case kTable:
            return float_or_half(tensor.type);
        case kBoxes:
        case kPoints:
            return tensor.type == DataType::kFLOAT;
        default:
            return tensor.type == tensors[kTable].desc.type;
        }
    }

    char const* wrong_with(nvinfer1::DynamicPluginTensorDesc const* inputs) const noexcept override {
        for (int32_t i = 0; i < kInputs; ++i) {
            if (inputs[i].desc.dims.nbDims != kRanks[i]) {
                return kShapes;
            }
        }
        auto const size = [&](Input input, int32_t axis) { return inputs[input].desc.dims.d[axis]; };
        if (!same_extent(size(kBoxes, 1), 4) || !same_extent(size(kPoints, 2), 2)) {
            return "a box has four corners and a point two coordinates";
        }
        if (!same_extent(size(kBoxes, 0), size(kCells, 0)) || !same_extent(size(kPoints, 0), size(kCells, 0))) {
            return "cells, boxes and points are of one number of RoIs";
        }
        if (!same_extent(size(kBias, 0), size(kTable, 3))) {
            return "the bias has as many channels as the table";
        }
        int64_t const own = size(kCells, 3);
        if (own != -1 && own < size(kTable, 3)) {
            return "the cells have no fewer channels than the table";
        }
        int64_t const pictures = size(kTable, 0);
        int64_t const rois = size(kCells, 0);
        if (pictures > 0 && rois > 0 && rois % pictures != 0) {
            return "every picture has the same number of RoIs";
        }
        return nullptr;
    }

    cudaError_t launch(nvinfer1::PluginTensorDesc const* described, void const* const* inputs, void* const* outputs,
                       void*, cudaStream_t stream) const noexcept override {
        return described[kTable].type == DataType::kFLOAT ? typed<float>(described, inputs, outputs, stream)
                                                          : typed<__half>(described, inputs, outputs, stream);
    }

private:
    template <class T>
    static cudaError_t typed(nvinfer1::PluginTensorDesc const* described, void const* const* inputs,
                             void* const* outputs, cudaStream_t stream) noexcept {
        nvinfer1::Dims const& table = described[kTable].dims;
        nvinfer1::Dims const& cells = described[kCells].dims;
        SampleRoisShape const shape{extent(table.d[0]), extent(table.d[1]), extent(table.d[2]),
                                    extent(table.d[3]), extent(cells.d[0]), extent(cells.d[1]),
                                    extent(cells.d[2]), extent(cells.d[3]), extent(described[kPoints].dims.d[1])};
        return sample_rois(static_cast<T const*>(inputs[kTable]), static_cast<T const*>(inputs[kCells]),
                           static_cast<T const*>(inputs[kBias]), static_cast<float const*>(inputs[kBoxes]),
                           static_cast<float const*>(inputs[kPoints]), static_cast<T*>(outputs[0]), shape, stream);
    }
};

} // namespace

nvinfer1::IPluginCreatorInterface& sample_rois_creator() noexcept {
    static Creator<SampleRoisPlugin> creator;
    return creator;
}

} // namespace pointrend
