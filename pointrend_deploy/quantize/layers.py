"""The layers with weights of a graph: what each belongs to, what it reads, what it costs.

A layer is a Conv, ConvTranspose, Gemm or MatMul of the main graph one of whose first two inputs is
constant, or moved out of a constant (gathered by class, sliced, transposed, cast, dequantised). A
product of two activations has no weights and is none of them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

import onnx

Role = Literal[
    "backbone",
    "fpn",
    "coarse_head",
    "rpn",
    "box_head",
    "mask_head",
    "point_head",
    "predictor",
    "other",
]
WEIGHTED_OPS: Final = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
_MOVE_NAMES = """
Cast CastLike Concat DequantizeLinear Expand Flatten Gather GatherElements Identity Reshape Slice
Split Squeeze Transpose Unsqueeze
"""
MOVES: Final = frozenset(_MOVE_NAMES.split())
"""Ops that give values of their first input and compute none."""
RECASTS: Final = frozenset(["Cast", "CastLike", "DequantizeLinear", "Identity"])
"""Those of them that keep the whole tensor as it lies."""
_FLOATS: Final = frozenset(
    [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8]
)  # INT8: weights of a graph that was quantised


@dataclass(frozen=True)
class WeightedLayer:
    """A node with weights.

    Attributes:
        name: of the node: its module's path, and the step or level where it is called more than
            once.
        op: Conv, ConvTranspose, Gemm or MatMul.
        role: what it is part of; ``predictor`` for the last layer of a head, whose outputs are
            logits or box deltas.
        weight: initializer it reads as it lies; None where rows are gathered or it is moved.
        activation: index of the input that is not the weight.
        flops: of one call, a multiply-add as two; a size that is open counts as one.
        block: module path of the residual block, pyramid or head it is in.
    """

    name: str
    op: str
    role: Role
    weight: str | None
    activation: int
    flops: int
    block: str


def weighted_layers(model: onnx.ModelProto) -> tuple[WeightedLayer, ...]:
    """All layers with weights, in the order of the graph.

    Args:
        model: a graph of any precision that has value_info for every value.
    """
    values = Values(model)
    found = []
    for node in model.graph.node:
        sides = _sides(node, values) if node.op_type in WEIGHTED_OPS else None
        if sides is not None:
            found.append((node, *sides))
    refines = any("point_head" in node.name.split(".") for node, _, _ in found)
    layers = []
    for node, weight, activation in found:
        role, block = role_and_block(node.name, refines)
        flops = _flops(node, activation, values)
        layers.append(
            WeightedLayer(node.name, node.op_type, role, weight, activation, flops, block)
        )
    return tuple(layers)


def role_and_block(name: str, refines: bool) -> tuple[Role, str]:
    """Role and block of a node with weights, from its name.

    Args:
        name: of the node.
        refines: the graph has a point head. Its projections of the fine and coarse features are
            written where they are computed, before the first step: in ``subdivision`` and in the
            instance mask head itself, where the standard mask head has its predictor.
    """
    parts = name.split(".")
    if "point_head" in parts:
        return "point_head", ".".join(parts[: parts.index("point_head") + 1])
    if parts[0] == "subdivision":
        return "point_head", "sem_seg_head.point_head"
    if parts[:2] == ["backbone", "bottom_up"]:
        number = next((i for i, part in enumerate(parts) if part.isdecimal()), 2)
        return "backbone", ".".join(parts[: 3 if parts[2:3] == ["stem"] else number + 1])
    if parts[0] == "backbone":
        return "fpn", "backbone.fpn"
    if parts[0] == "proposal_generator":
        last = {"objectness_logits", "anchor_deltas"} & set(parts)
        return "predictor" if last else "rpn", "proposal_generator.rpn_head"
    if parts[:2] == ["roi_heads", "box_predictor"]:
        return "predictor", "roi_heads.box_predictor"
    if parts[:2] == ["roi_heads", "box_head"]:
        return "box_head", "roi_heads.box_head"
    if parts[:3] == ["roi_heads", "mask_head", "coarse_head"]:
        return (
            "predictor" if parts[3:] == ["prediction"] else "coarse_head",
            "roi_heads.mask_head.coarse_head",
        )
    if parts[:2] == ["roi_heads", "mask_head"]:
        if re.fullmatch(r"mask_fcn\d+|deconv", parts[2] if len(parts) > 2 else ""):
            return "mask_head", "roi_heads.mask_head"
        if refines:
            return "point_head", "roi_heads.mask_head.point_head"
        return "predictor", "roi_heads.mask_head"
    if parts[0] == "sem_seg_head":
        block = ".".join(parts[: 2 if parts[1:2] == ["coarse_sem_seg_head"] else 1])
        return "predictor" if "predictor" in parts else "coarse_head", block
    return "other", parts[0]


def output_axis(node: onnx.NodeProto, weight_input: int, rank: int) -> int:
    """Axis of a layer's weight that counts output channels.

    Conv is (C_out, C_in / groups, ...), ConvTranspose (C_in, C_out / groups, ...); Gemm's is turned
    by transA or transB.
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    turning = "transB" if weight_input == 1 else "transA"
    turned = any(a.name == turning and a.i for a in node.attribute)
    return rank - 1 if (weight_input == 1) != turned else rank - 2


class Values:
    """Where the values of a graph come from, and their shapes.

    Attributes:
        producers: node that makes each value.
        constants: initializers by name.
        shapes: of every value and constant; a size that is open is 1.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.producers = {name: node for node in graph.node for name in node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for value in [*graph.input, *graph.value_info, *graph.output]:
            dims = value.type.tensor_type.shape.dim
            self.shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else 1 for dim in dims
            )

    def whole_constant(self, value: str) -> str | None:
        """The initializer that ``value`` is, in whatever type; None where it is another thing."""
        while value in self.producers and self.producers[value].op_type in RECASTS:
            value = self.producers[value].input[0]
        return value if value in self.constants else None

    def is_weight(self, value: str) -> bool:
        """Whether ``value`` is, or is moved out of, a constant matrix or filter."""
        if value in self.constants:
            tensor = self.constants[value]
            return tensor.data_type in _FLOATS and len(tensor.dims) > 1
        node = self.producers.get(value)
        if node is None or node.op_type not in MOVES:
            return False
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        return all(self.is_weight(source) for source in sources)


def _sides(node: onnx.NodeProto, values: Values) -> tuple[str | None, int] | None:
    """The weight as it lies, and the index of the other input; None where there is no weight."""
    for index in (1, 0):
        if values.is_weight(node.input[index]):
            return values.whole_constant(node.input[index]), 1 - index
    return None


def _flops(node: onnx.NodeProto, activation: int, values: Values) -> int:
    weight = values.shapes[node.input[1 - activation]]
    out = math.prod(values.shapes[node.output[0]])
    if node.op_type == "Conv":
        return 2 * out * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(values.shapes[node.input[activation]]) * math.prod(weight[1:])
    axis = output_axis(node, 1 - activation, len(weight))
    return 2 * out * weight[len(weight) - 1 if axis == len(weight) - 2 else len(weight) - 2]
