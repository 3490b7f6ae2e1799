"""Write a placement into a graph as explicit QuantizeLinear and DequantizeLinear nodes.

    before: x -> Conv(x, w, b)
    after:  x -> Quantize -> Dequantize -> Conv(., Dequantize(w int8), b)

Builders fuse the two Dequantize nodes with the layer into one INT8 kernel. Other readers of ``x``
still read ``x``. Each weight is stored once in INT8, with a scale per output channel; biases are
not changed. Quantisation is symmetric, q = round(x / scale) with zero point 0, the only form
TensorRT takes.

A scale is stored in the type of its values, FP32 or FP16. Rounded to nearest in FP16, a scale could
put the largest value at 127.06, or become 0 for a channel of tiny weights. So it is rounded up, and
is at least 2**-24 in FP16. There INT8 has the spacing that FP16 itself has, so nothing is lost that
the FP16 graph would have kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.slices import nodes_behind
from pointrend_deploy.quantize.layers import WeightedLayer, output_axis, weighted_layers
from pointrend_deploy.quantize.placement import Placement

HALF_OPSET: Final = 19
"""First opset in which QuantizeLinear and DequantizeLinear take FP16; builders misread opset 20."""
_HALF_IR: Final = 9
"""ONNX IR version that came with that opset."""
Scale = type[np.float32] | type[np.float16]
LEVELS: Final = 127
"""INT8 steps on either side of 0. Weights never use -128; activations below the range become it."""
UNSEEN: Final = 1.0
"""Largest absolute value assumed for values that were always 0."""
_FLOORS: Final = {np.dtype(np.float16): 2.0**-24, np.dtype(np.float32): 2.0**-100}
"""Smallest scale by type; in FP32 far above the point where a product of two scales becomes 0."""


def insert(
    model: onnx.ModelProto,
    placement: Placement,
    amax: Mapping[str, float],
    weights_from: onnx.ModelProto | None = None,
) -> onnx.ModelProto:
    """Copy a graph and insert Q/DQ nodes.

    Args:
        model: the FP32 graph, or the FP16 graph made from it, with ``value_info`` for every value.
        placement: the placement of the FP32 graph.
        amax: by value of the FP32 graph, the largest absolute value to represent. Where the FP16
            graph casts a value before a layer reads it, the cast's output is quantised.
        weights_from: the FP32 graph, so that its weights are rounded once (to INT8) and not twice;
            None to take the weights of ``model``.

    Returns:
        The new graph; its opset is at least 19 if a scale is FP16.

    Raises:
        DeployError: a value has no range, or its range is not a finite number >= 0.
    """
    _check(placement, amax)
    graph = _Insertion(model)
    source = model if weights_from is None else weights_from
    layers = {layer.name: layer for layer in weighted_layers(source)}
    weights = {tensor.name: tensor for tensor in source.graph.initializer}
    for name, index, value in placement.edges:
        graph.quantize_edge(name, index, amax[value])
    for name in placement.int8:
        layer = layers[name]
        if layer.weight is None:
            raise DeployError(f"the weights of {name} are no constant and cannot be INT8")
        graph.quantize_weight(layer, weights[layer.weight])
    return graph.finished()


def _check(placement: Placement, amax: Mapping[str, float]) -> None:
    values = dict.fromkeys(value for _, _, value in placement.edges)
    if missing := [value for value in values if value not in amax]:
        raise DeployError(
            f"{len(missing)} of {len(values)} values have no range: {', '.join(missing[:3])}",
            "calibrate the bundle again",
        )
    for value in values:
        if not (math.isfinite(amax[value]) and amax[value] >= 0):
            raise DeployError(f"the range of {value} is {amax[value]}", "calibrate again")


class _Insertion:
    """Inserts Q/DQ nodes into a copy of a graph.

    Args:
        model: the graph; not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        self.nodes = {node.name: node for node in graph.node}
        self.before: dict[str, list[onnx.NodeProto]] = {}
        self.types: dict[str, int] = {t.name: t.data_type for t in graph.initializer}
        self.infos: dict[str, onnx.ValueInfoProto] = {}
        for info in [*graph.input, *graph.value_info, *graph.output]:
            self.types[info.name] = info.type.tensor_type.elem_type
            self.infos[info.name] = info
        self.done: dict[tuple[object, ...], str] = {}
        self.half = False

    def quantize_edge(self, name: str, index: int, amax: float) -> None:
        """Quantise one input of a node; edges that read the same value share a Q/DQ pair."""
        node = self.nodes[name]
        value = node.input[index]
        if (value,) not in self.done:
            dtype = self._dtype(value)
            scale = self._constant(f"{value}.scale", scales_of(amax, dtype))
            zero = self._zero("zero.int8", ())
            whole = f"{value}.quantize"
            back = f"{value}.dequantize"
            nodes = [
                helper.make_node("QuantizeLinear", [value, scale, zero], [f"{whole}.out"], whole),
                helper.make_node(
                    "DequantizeLinear", [f"{whole}.out", scale, zero], [f"{back}.out"], back
                ),
            ]
            self.before.setdefault(name, []).extend(nodes)
            self._info_like(f"{whole}.out", value, TensorProto.INT8)
            self._info_like(f"{back}.out", value, self.types[value])
            self.done[(value,)] = f"{back}.out"
        node.input[index] = self.done[(value,)]

    def quantize_weight(self, layer: WeightedLayer, weight: TensorProto) -> None:
        """Store a layer's weight in INT8; layers that share a weight share the INT8 values."""
        node = self.nodes[layer.name]
        index = 1 - layer.activation
        dtype = self._dtype(node.input[index])
        axis = output_axis(node, index, len(weight.dims))
        key = (weight.name, axis, np.dtype(dtype).name)
        if key not in self.done:
            base = weight.name + ("" if f"{weight.name}.int8" not in self.types else f".{axis}")
            base += "" if f"{base}.int8" not in self.types else f".{np.dtype(dtype).name}"
            values, scales = quantized_weight(numpy_helper.to_array(weight), axis, dtype)
            back = f"{base}.dequantize"
            inputs = [
                self._constant(f"{base}.int8", values),
                self._constant(f"{base}.scale", scales),
                self._zero(f"zero.int8.{len(scales)}", scales.shape),
            ]
            made = helper.make_node("DequantizeLinear", inputs, [f"{back}.out"], back, axis=axis)
            self.before.setdefault(layer.name, []).append(made)
            kind = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
            self.infos[f"{back}.out"] = helper.make_tensor_value_info(
                f"{back}.out", kind, list(weight.dims)
            )
            self.done[key] = f"{back}.out"
        node.input[index] = self.done[key]

    def finished(self) -> onnx.ModelProto:
        """Return the graph: nodes in order, unused ones removed, ``value_info`` for new values."""
        graph = self.model.graph
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            nodes += [*self.before.get(node.name, []), node]
        # Casts of weights that are now INT8 have no reader any more.
        kept = nodes_behind(nodes, (output.name for output in graph.output))
        read = {name for node in kept for name in node.input}
        constants = [tensor for tensor in graph.initializer if tensor.name in read]
        known = {name for node in kept for name in node.output}
        known -= {output.name for output in graph.output}
        infos = [self.infos[name] for node in kept for name in node.output if name in known]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(kept)
        graph.initializer.extend(constants)
        graph.value_info.extend(infos)
        if self.half:
            _raise_opset(self.model)
        return self.model

    def _dtype(self, value: str) -> Scale:
        half = self.types[value] == TensorProto.FLOAT16
        self.half |= half
        return np.float16 if half else np.float32

    def _constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.types:
            tensor = numpy_helper.from_array(values, name)
            self.model.graph.initializer.append(tensor)
            self.types[name] = tensor.data_type
        return name

    def _zero(self, name: str, shape: tuple[int, ...]) -> str:
        return self._constant(name, np.zeros(shape, np.int8))

    def _info_like(self, name: str, value: str, kind: int) -> None:
        info = onnx.ValueInfoProto()
        info.CopyFrom(self.infos[value])
        info.name = name
        info.type.tensor_type.elem_type = kind
        self.infos[name] = info


def _raise_opset(model: onnx.ModelProto) -> None:
    model.ir_version = max(model.ir_version, _HALF_IR)
    for imports in [model.opset_import, *(function.opset_import for function in model.functions)]:
        for opset in imports:
            if opset.domain in ("", "ai.onnx"):
                opset.version = max(opset.version, HALF_OPSET)


def scales_of(amax: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
    """Compute the smallest scales that clip no value up to ``amax``.

    Args:
        amax: largest absolute values, finite, any shape.
        dtype: type of the values and of the scales: float16 or float32.

    Returns:
        amax / 127 rounded up to ``dtype``, of the same shape; an amax of 0 counts as
        :data:`UNSEEN`.
    """
    kind = np.dtype(dtype)
    exact = np.asarray(amax, np.float64)
    exact = np.where(exact > 0, exact, UNSEEN) / LEVELS
    exact = np.clip(exact, _FLOORS[kind], float(np.finfo(kind).max))
    near = exact.astype(kind)
    up = np.nextafter(near, np.asarray(np.inf, kind))
    return np.where(near.astype(np.float64) < exact, up, near).astype(kind)


def quantized(
    values: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]
) -> npt.NDArray[np.int8]:
    """Quantise values to INT8 in -127..127, rounding ties to even as QuantizeLinear does.

    Args:
        values: any shape.
        scale: any shape that broadcasts with ``values``.
    """
    steps = np.rint(values.astype(np.float64) / scale.astype(np.float64))
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8)


def quantized_weight(
    weight: npt.NDArray[np.floating], axis: int, dtype: npt.DTypeLike
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.floating]]:
    """Quantise a weight to INT8 with a scale per output channel.

    Args:
        weight: two or more dimensions.
        axis: the axis that counts output channels.
        dtype: type of the scales: float16 or float32.

    Returns:
        INT8 values of the weight's shape, and scales of shape (channels,). A channel of zeros stays
        zero.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = scales_of(np.abs(weight.astype(np.float64)).max(axis=others), dtype)
    return quantized(weight, np.expand_dims(scale, others)), scale
