"""The layers with weights of a graph, and the layers that a user's patterns match.

A layer is a Conv, ConvTranspose, Gemm or MatMul of the main graph with a weight as one of its first
two inputs: a constant, or a part of one (gathered by class, sliced, transposed, cast, dequantised).
A product of two activations is no layer.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

import onnx

from pointrend_deploy.errors import UsageError
from pointrend_deploy.quantize.values import Values

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
_RECASTS: Final = frozenset(["Cast", "CastLike", "DequantizeLinear", "Identity"])
"""Ops that change the type of a weight but not its layout."""
_NEAREST: Final = 3
"""Most names that an error suggests."""


@dataclass(frozen=True)
class WeightedLayer:
    """A node with weights.

    Attributes:
        name: name of the node: the path of its module, and the step or level if the module is
            called more than once.
        op: Conv, ConvTranspose, Gemm or MatMul.
        role: part of the network it is in; ``predictor`` for the last layer of a head, whose
            outputs are logits or box deltas.
        weight: name of the initializer with its weight; None if the weight is gathered, sliced or
            transposed on the way.
        activation: index of the input that is not the weight.
        flops: FLOPs of one call; a multiply-add counts as two, a dimension of open size as one.
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
    """Return all layers with weights, in the order of the graph.

    Args:
        model: a graph of any precision with ``value_info`` for every value.
    """
    values, shapes = Values(model), shapes_of(model)
    found = [node for node in model.graph.node if values.has_weights(node)]
    refines = any("point_head" in node.name.split(".") for node in found)
    layers = []
    for node in found:
        weight, activation = _weight_and_activation(node, values)
        role, block = role_and_block(node.name, refines)
        flops = _flops(node, activation, shapes)
        layers.append(
            WeightedLayer(node.name, node.op_type, role, weight, activation, flops, block)
        )
    return tuple(layers)


def role_and_block(name: str, refines: bool) -> tuple[Role, str]:
    """Return the role and the block of a node with weights, from its name.

    Args:
        name: name of the node.
        refines: whether the graph has a point head. In instance models the point head's
            projections of fine and coarse features are computed before the first step and are
            named after the mask head, where the standard mask head has its predictor.
    """
    parts = name.split(".")
    if "point_head" in parts:
        return "point_head", ".".join(parts[: parts.index("point_head") + 1])
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
    """Return the axis of a layer's weight that counts output channels.

    A Conv's weight is (C_out, C_in / groups, ...), a ConvTranspose's (C_in, C_out / groups, ...). A
    Gemm's depends on transA or transB.

    Args:
        node: the layer.
        weight_input: index of the input that is the weight.
        rank: number of dimensions of the weight.
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    turning = "transB" if weight_input == 1 else "transA"
    turned = any(a.name == turning and a.i for a in node.attribute)
    return rank - 1 if (weight_input == 1) != turned else rank - 2


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of every value and initializer; a dimension of open size counts as 1."""
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else 1 for d in dims)
    return shapes


def _weight_and_activation(node: onnx.NodeProto, values: Values) -> tuple[str | None, int]:
    """Return the weight's initializer (None if it is moved) and the index of the other input."""
    index = 1 if node.input[1] in values.constants else 0
    weight = node.input[index]
    while weight in values.makers and values.makers[weight].op_type in _RECASTS:
        weight = values.makers[weight].input[0]
    return (None if weight in values.makers else weight), 1 - index


def _flops(node: onnx.NodeProto, activation: int, shapes: dict[str, tuple[int, ...]]) -> int:
    weight = shapes[node.input[1 - activation]]
    out = math.prod(shapes[node.output[0]])
    if node.op_type == "Conv":
        return 2 * out * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(shapes[node.input[activation]]) * math.prod(weight[1:])
    summed = {len(weight) - 1, len(weight) - 2} - {output_axis(node, 1 - activation, len(weight))}
    return 2 * out * weight[summed.pop()]


def matched(names: Sequence[str], patterns: Sequence[str], option: str) -> frozenset[str]:
    """Return the names that match at least one pattern.

    A pattern matches a whole name, with ``*``, ``?`` and ``[...]`` as in a shell and case kept. A
    module path also matches every name below it: ``backbone.bottom_up.res5`` matches
    ``backbone.bottom_up.res5.0.conv1`` but not ``backbone.bottom_up.res50``.

    Args:
        names: names to choose from.
        patterns: patterns as given on the command line.
        option: the option they were given with, for the error.

    Raises:
        UsageError: a pattern matches none of the names; the error suggests similar names.
    """
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if matches(pattern, name)}
        if not matching:
            raise UsageError(f"{option} {pattern!r} matches no layer", _nearest(pattern, names))
        found |= matching
    return frozenset(found)


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a name, or a module path above it; see :func:`matched`."""
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Return a hint with the names and module paths most similar to a pattern."""
    depth = pattern.count(".") + 1
    paths = dict.fromkeys(".".join(name.split(".")[:depth]) for name in names)
    plain = pattern.strip("*?")
    near = difflib.get_close_matches(plain, [*paths, *names], n=_NEAREST, cutoff=0.5)
    near = near or [name for name in names if plain and plain in name][:_NEAREST]
    near = near or list(paths)[:_NEAREST]
    return f"patterns match module paths, such as {', '.join(dict.fromkeys(near))}"
