"""Choose the layers that compute in INT8 and the edges on which their inputs are quantised.

The rule:

- Meant for INT8: every layer with weights of the backbone, the pyramid, the coarse heads, the RPN,
  the box head and the standard mask head.
- ConvTranspose is an exception: TensorRT-RTX 1.7 builds a floating point kernel for it, whether its
  weight has one scale or one per channel of either axis, and even if its output is quantised too.
  Depthwise, grouped and 1-D convolutions, Gemm with and without transB, and MatMul with a constant
  on either side all become INT8 kernels (compute capability 8.6).
- Not meant for INT8, but possible on request: the last layer of a head (its logits and deltas
  decide what is selected) and the point head (its features are sampled at real coordinates, and it
  decides labels at boundaries). Nothing else has Q/DQ: no resize, sampler, top-k or softmax.
- A value is quantised on the edge to the layer that reads it, not where it is made: p2 goes to the
  coarse head in INT8 and to the sampler unquantised. All edges share one Q/DQ pair per value.
- The shortcut of a residual addition is quantised too. A builder then makes ``conv -> add -> relu``
  one INT8 kernel, which takes the sum before anything is rounded. The output of the layer that the
  addition is fused with is therefore never quantised. See :func:`shortcuts`.
- Max pooling needs no Q/DQ: quantisation keeps the order of values.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import onnx

from pointrend_deploy.quantize.layers import Role, WeightedLayer, weighted_layers
from pointrend_deploy.quantize.values import Values

INTENDED: Final[frozenset[Role]] = frozenset(
    ["backbone", "fpn", "coarse_head", "rpn", "box_head", "mask_head"]
)
PREDICTOR: Final = "predictor"
POINT_HEAD: Final = "point head"
OTHER: Final = "not a part known to bear INT8"
ASKED: Final = "asked for"
CANNOT: Final = "cannot: "
"""Reasons why a layer is not in INT8; CANNOT is followed by the cause."""


@dataclass(frozen=True)
class Placement:
    """The part of a graph that is in INT8.

    Attributes:
        int8: names of the INT8 layers, in graph order.
        left_out: by name of every other layer with weights, the reason why it is not in INT8.
        edges: inputs that are quantised: name of the node, index of its input, and name of the
            value in the FP32 graph.
        flops_share: share of ``meant_flops`` that is in INT8, in 0..1; 1 if ``meant_flops`` is 0.
        meant_flops: FLOPs of all layers that are meant for INT8 and can be in INT8.
    """

    int8: tuple[str, ...]
    left_out: dict[str, str]
    edges: tuple[tuple[str, int, str], ...]
    flops_share: float
    meant_flops: int = 0


def place(
    model: onnx.ModelProto, keep: Collection[str] = (), also: Collection[str] = ()
) -> Placement:
    """Apply the rule to a graph.

    Args:
        model: the FP32 graph, with ``value_info`` for every value.
        keep: names of layers to leave out of INT8.
        also: names of layers to put in INT8 that the rule does not.
    """
    layers = weighted_layers(model)
    reasons = {layer.name: _reason(layer, keep, also) for layer in layers}
    chosen = {name for name, reason in reasons.items() if reason is None}
    meant = [layer for layer in layers if layer.role in INTENDED and not _cannot(layer)]
    total = sum(layer.flops for layer in meant)
    reached = sum(layer.flops for layer in meant if layer.name in chosen)
    return Placement(
        int8=tuple(layer.name for layer in layers if layer.name in chosen),
        left_out={name: reason for name, reason in reasons.items() if reason is not None},
        edges=_edges(model, layers, chosen),
        flops_share=reached / total if total else 1.0,
        meant_flops=total,
    )


def observable(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return every value for which a placement could need a range, in graph order."""
    layers = weighted_layers(model)
    possible = {layer.name for layer in layers if not _cannot(layer)}
    edges = _edges(model, layers, possible)
    return tuple(dict.fromkeys(value for _, _, value in edges))


def _reason(layer: WeightedLayer, keep: Collection[str], also: Collection[str]) -> str | None:
    """Return why a layer is not in INT8; None if it is."""
    if layer.name in keep:
        return ASKED
    if layer.role in INTENDED or layer.name in also:
        return _cannot(layer)
    if layer.role == "predictor":
        return PREDICTOR
    return POINT_HEAD if layer.role == "point_head" else OTHER


def _cannot(layer: WeightedLayer) -> str | None:
    if layer.weight is None:
        return f"{CANNOT}its weights are gathered or moved in the graph"
    if layer.op == "ConvTranspose":
        return f"{CANNOT}TensorRT-RTX computes ConvTranspose in floating point, with Q/DQ too"
    return None


def _edges(
    model: onnx.ModelProto, layers: tuple[WeightedLayer, ...], chosen: Collection[str]
) -> tuple[tuple[str, int, str], ...]:
    wanted = {layer.name: layer.activation for layer in layers if layer.name in chosen}
    for layer, (add, index) in shortcuts(model, layers).items():
        if layer in chosen:
            wanted[add] = index
    return tuple(
        (node.name, wanted[node.name], node.input[wanted[node.name]])
        for node in model.graph.node
        if node.name in wanted
    )


def shortcuts(
    model: onnx.ModelProto, layers: tuple[WeightedLayer, ...]
) -> dict[str, tuple[str, int]]:
    """Find the residual additions of a graph.

    An Add of two computed values is a residual addition if (a) one of them is the output of a layer
    with weights that nothing else reads, and (b) the other is the shortcut: either a value that
    this layer was computed from (the block's input), or the output of a layer that reads such a
    value and has fewer layers with weights before it (the shortcut's convolution). The top-down
    addition of a pyramid is not: the lateral convolution was not computed from the upper level.

    Args:
        model: the graph.
        layers: its layers with weights.

    Returns:
        By name of the layer that the addition is fused with: the name of the Add, and the index of
        its shortcut input.
    """
    values = Values(model)
    outputs = {output.name for output in model.graph.output}
    activation = {layer.name: layer.activation for layer in layers}
    found = {}
    for node in model.graph.node:
        if node.op_type != "Add" or any(name in values.constants for name in node.input):
            continue
        fused = [
            index
            for index, name in enumerate(node.input)
            if (maker := values.makers.get(name)) is not None
            and maker.name in activation
            and len(values.readers[name]) == 1
            and name not in outputs
            and _is_shortcut(node.input[1 - index], maker, values, activation)
        ]
        if len(fused) == 1:
            maker = values.makers[node.input[fused[0]]]
            found[maker.name] = (node.name, 1 - fused[0])
    return found


def _is_shortcut(
    other: str, layer: onnx.NodeProto, values: Values, activation: dict[str, int]
) -> bool:
    behind = _depths(layer.input[activation[layer.name]], values, activation)
    if other in behind:
        return True
    maker = values.makers.get(other)
    if maker is None or maker.name not in activation:
        return False
    return behind.get(maker.input[activation[maker.name]], 0) > 0


def _depths(value: str, values: Values, activation: dict[str, int]) -> dict[str, int]:
    """Map every value that ``value`` is computed from to the layers with weights in between.

    If several paths lead to a value, the layers of one of them are counted. Only whether there are
    any matters to the caller, and within a branch that is the same on all paths.
    """
    depths = {value: 0}
    waiting = [value]
    while waiting:
        name = waiting.pop()
        node = values.makers.get(name)
        if node is None:
            continue
        step = 1 if node.name in activation else 0
        sources = [node.input[activation[node.name]]] if step else list(node.input)
        for source in sources:
            if source and source not in values.constants and source not in depths:
                depths[source] = depths[name] + step
                waiting.append(source)
    return depths
