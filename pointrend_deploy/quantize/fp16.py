"""Turn an FP32 graph into an FP16 graph with FP32 islands.

The type of every value is written in the file; a builder has nothing to choose. islands.py says
which nodes stay in FP32, retype.py writes the types, constants and casts, and two further rewrites
complete the graph: :func:`widen_sampler` and :func:`saturate`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.passes.tidy import tidy
from pointrend_deploy.quantize.islands import cast_to, node_types
from pointrend_deploy.quantize.retype import retyped
from pointrend_deploy.quantize.values import Values, weighted_names

_BOUNDS: Final = {
    "fp16.least": np.array(np.finfo(np.float16).min, np.float32),
    "fp16.largest": np.array(np.finfo(np.float16).max, np.float32),
}
"""Smallest and largest finite FP16 numbers, as the FP32 constants of a Clip."""


@dataclass(frozen=True)
class HalfGraph:
    """An FP16 graph with FP32 islands.

    Attributes:
        model: the graph. Nodes, values, inputs and outputs keep the names they had in the FP32
            graph, and inputs and outputs keep their types. The only new nodes are casts, and a Clip
            before each cast of an FP32 layer's output to FP16.
        fp32_layers: names of the layers with weights that compute in FP32 (``keep_fp32``).
    """

    model: ModelProto
    fp32_layers: tuple[str, ...]


def to_half(model: ModelProto, keep_fp32: Collection[str] = ()) -> HalfGraph:
    """Make the FP16 graph of an FP32 graph.

    before: conv (x: float32, w: float32) -> conv.out: float32 -> TopK
    after:  conv (x: float16, w: float16) -> conv.out: float16 -> Cast -> conv.to_fp32.out -> TopK

    Args:
        model: an FP32 graph with ``value_info`` for every value; not changed.
        keep_fp32: names of nodes to keep in FP32, beside those that must be FP32.

    Raises:
        DeployError: a layer has weights that FP16 cannot represent, node names are missing or
            repeated, or the graph has FP16 values already.
    """
    if TensorProto.FLOAT16 in Values(model).types.values():
        raise DeployError("the graph has float16 values: only an FP32 graph is turned into FP16")
    if len({node.name for node in model.graph.node}) != len(model.graph.node):
        raise DeployError("nodes of the graph have no names of their own", "export it again")
    types = node_types(model, keep_fp32)
    half = retyped(model, types)
    for function in half.functions:
        if function.name == "PointRendSample":
            widen_sampler(function)
    layers = tuple(name for name in weighted_names(model) if types[name] == "float32")
    saturate(half, layers)
    return HalfGraph(model=tidy(half, model.producer_version), fp32_layers=layers)


def widen_sampler(function: FunctionProto) -> None:
    """Make the body of PointRendSample sample in FP32 and return the features' type; in place.

    before: GridSample(features, grid) -> ... -> result
    after:  GridSample(Cast(features, float32), grid) -> ... -> CastLike(..., features) -> result

    GridSample takes features and grid of one type, and coordinates in FP16 would be up to a pixel
    wrong. The body of PointRendRoIAlign has this form from the start.

    Args:
        function: the model-local function; its first input is the features.
    """
    features, (result,) = function.input[0], function.output
    nodes: list[NodeProto] = []
    for node in function.node:
        if node.op_type == "GridSample" and node.input[0] == features:
            to = TensorProto.FLOAT
            nodes.append(helper.make_node("Cast", [features], ["features_fp32"], to=to))
            node.input[0] = "features_fp32"
        node.output[:] = ["sampled_fp32" if name == result else name for name in node.output]
        nodes.append(node)
    nodes.append(helper.make_node("CastLike", ["sampled_fp32", features], [result]))
    for index, node in enumerate(nodes):
        node.name = f"{node.op_type}_{index}"
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del function.node[:]
    function.node.extend(copies)


def saturate(model: ModelProto, layers: Collection[str]) -> None:
    """Clip the outputs of FP32 layers to the range of FP16 before they are cast; in place.

    before: conv (float32) -> Cast -> float16
    after:  conv (float32) -> Clip to -65504..65504 -> Cast -> float16

    A layer is kept in FP32 because its values may be large; without the Clip the cast would make
    infinities of them. The Clip also keeps the layer in FP32 in an engine: TensorRT-RTX 1.7 fuses
    Cast -> Conv -> Cast (and ConvTranspose and MatMul between two casts) into one FP16 kernel,
    strongly typed or not, but does not fuse across a Clip.

    Args:
        model: an FP16 graph with ``value_info`` for every value.
        layers: names of the nodes that compute in FP32.
    """
    graph = model.graph
    written = {name for node in graph.node if node.name in layers for name in node.output}
    declared = {v.name: v for v in [*graph.value_info, *graph.output]}
    nodes = []
    for node in graph.node:
        bounded = node.op_type == "Cast" and node.input[0] in written
        if bounded and cast_to(node) == TensorProto.FLOAT16:
            clip = f"{node.input[0].removesuffix('.out')}.bounded"
            info = onnx.ValueInfoProto()
            info.CopyFrom(declared[node.input[0]])
            info.name = f"{clip}.out"
            graph.value_info.append(info)
            nodes.append(helper.make_node("Clip", [node.input[0], *_BOUNDS], [info.name], clip))
            node.input[0] = info.name
        nodes.append(node)
    if len(nodes) > len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in _BOUNDS.items())
