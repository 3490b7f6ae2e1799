"""Nodes, FLOPs and peak activation bytes of an ONNX graph with fixed shapes, by counting.

The rules are plain so that two graphs can be compared: a multiply-add is two FLOPs; a sampled or
linearly resized value eight (four weights, four additions); a value of TopK, ArgMax or a reduction
one an input element; any other computed value one; moving values (Slice, Concat, Reshape, Scatter,
Cast ...) none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import onnx

_MOVE_NAMES = """
Cast Concat Constant Expand Gather Identity Pad Reshape ScatterElements Slice Split Squeeze
Transpose Unsqueeze
"""
_MOVES: Final = frozenset(_MOVE_NAMES.split())
_VIEWS: Final = frozenset(["Identity", "Reshape", "Squeeze", "Unsqueeze"])
"""Ops whose output shares the memory of their first input."""


@dataclass(frozen=True)
class GraphSize:
    """What a graph costs, counted.

    Attributes:
        nodes: number of nodes.
        flops: see the module's rules.
        peak_activation_bytes: most bytes of values alive at once when nodes run in file order,
            outputs included, inputs and constants not.
    """

    nodes: int
    flops: int
    peak_activation_bytes: int


def graph_size(model: onnx.ModelProto) -> GraphSize:
    """Count a graph of standard ops whose values all have fixed, known shapes."""
    shapes = _shapes(model)
    return GraphSize(
        nodes=len(model.graph.node),
        flops=sum(_node_flops(node, shapes) for node in model.graph.node),
        peak_activation_bytes=_peak_bytes(model, shapes),
    )


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        shapes[value.name] = (tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim))
    return shapes


def _node_flops(node: onnx.NodeProto, shapes: dict[str, tuple[int, tuple[int, ...]]]) -> int:
    size = math.prod(shapes[node.output[0]][1])
    if node.op_type in _MOVES:
        return 0
    if node.op_type == "Conv":
        return 2 * size * math.prod(shapes[node.input[1]][1][1:])
    if node.op_type in ("Gemm", "MatMul"):
        left = shapes[node.input[0]][1]
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        return 2 * size * left[-2 if turned else -1]
    if node.op_type in ("Resize", "GridSample"):
        return 8 * size
    if node.op_type in ("TopK", "ArgMax", "ReduceMax"):
        return math.prod(shapes[node.input[0]][1])
    return size


def _peak_bytes(model: onnx.ModelProto, shapes: dict[str, tuple[int, tuple[int, ...]]]) -> int:
    graph = model.graph
    kept = {value.name for value in graph.output}
    outside = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    owner: dict[str, str] = {}
    last_use: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.input:
            last_use[owner.get(name, name)] = index
        for name in node.output:
            source = owner.get(node.input[0], node.input[0]) if node.input else ""
            owner[name] = source if node.op_type in _VIEWS else name
            last_use.setdefault(owner[name], index)
    for name in kept:
        last_use[owner.get(name, name)] = len(graph.node)
    alive = peak = 0
    ends: dict[int, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name and owner[name] == name and name not in outside and node.op_type != "Constant":
                code, shape = shapes[name]
                size = math.prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(code).itemsize
                alive += size
                ends[last_use[name]] = ends.get(last_use[name], 0) + size
        peak = max(peak, alive)
        alive -= ends.pop(index, 0)
    return peak
