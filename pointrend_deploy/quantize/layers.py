"""The layers with weights of a graph: what each belongs to, what it reads, what it costs.

A layer is a Conv, ConvTranspose, Gemm or MatMul of the main graph one of whose first two inputs is
constant, or moved out of a constant (gathered by class, sliced, transposed, cast, dequantised). A
product of two activations has no weights and is none of them.

MERGED: Names of nodes that a user's patterns mean.
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
"""Ops that keep a weight as it lies, in another type."""


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
    """Role and block of a node with weights, from its name.

    Args:
        name: of the node.
        refines: the graph has a point head. Of instance models its projections of the fine and
            coarse features are written where they are computed, before the first step: in the
            mask head itself, where the standard mask head has its predictor.
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


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of every value and constant; a size that is open is 1."""
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else 1 for d in dims)
    return shapes


def _weight_and_activation(node: onnx.NodeProto, values: Values) -> tuple[str | None, int]:
    """The weight if it is read as it lies, and the index of the other input."""
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


_NEAREST = 3


def matched(names: Sequence[str], patterns: Sequence[str], option: str) -> frozenset[str]:
    """Names that at least one pattern means.

    A pattern is a whole name with ``*``, ``?`` and ``[...]`` as in a shell, case kept, or a module
    path: then it means every name below it too. ``backbone.bottom_up.res5`` means
    ``backbone.bottom_up.res5.0.conv1`` but not ``backbone.bottom_up.res50``.

    Args:
        names: to choose from.
        patterns: as given on the command line.
        option: that gave them, for the error.

    Raises:
        UsageError: a pattern that means none of the names; the nearest ones are named.
    """
    found: set[str] = set()
    for pattern in patterns:
        meant = {name for name in names if _means(pattern, name)}
        if not meant:
            raise UsageError(f"{option} {pattern!r} matches no layer", _nearest(pattern, names))
        found |= meant
    return frozenset(found)


def _means(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """The names and module paths most like a pattern, as a hint."""
    depth = pattern.count(".") + 1
    paths = dict.fromkeys(".".join(name.split(".")[:depth]) for name in names)
    plain = pattern.strip("*?")
    near = difflib.get_close_matches(plain, [*paths, *names], n=_NEAREST, cutoff=0.5)
    near = near or [name for name in names if plain and plain in name][:_NEAREST]
    near = near or list(paths)[:_NEAREST]
    return f"patterns are of module paths, such as {', '.join(dict.fromkeys(near))}"
