"""Which layers compute in INT8, and on which edges values are quantised for them.

The rule:

- Meant for INT8: every layer with weights of the backbone, the pyramid, the coarse heads, the RPN,
  the box head and the standard mask head.
- Of these, ConvTranspose cannot: TensorRT-RTX 1.7 builds a floating point kernel of it whether its
  weight has a scale a tensor, a channel of either axis, or its output is quantised too. Depthwise,
  grouped and 1-D convolutions, Gemm with and without transB, and MatMul with a constant on either
  side all become INT8 kernels (compute capability 8.6).
- Not: the last layer of a head (its logits and deltas decide what is selected) and the point head
  (its features are sampled at real coordinates, and it decides labels at boundaries); either is
  put in on request. Nothing else has Q/DQ: no resize, no sampler, no top-k, no softmax.
- A value is quantised on the edge to the layer that reads it, not where it is made: p2 goes to the
  coarse head in INT8 and to the sampler as it is. One Q/DQ pair a value, whichever edges share it.
- Besides these only the shortcut of a residual addition, so that the layer before the addition,
  the addition and the ReLU become one kernel; see :mod:`pointrend_deploy.quantize.placement`.
- Max pooling has none of its own: the order of values is that of their quantised ones.

MERGED: Additions of residual blocks, and which of their two inputs is the shortcut.

A builder writes ``conv -> add -> relu`` as one INT8 kernel when the other input of the addition is
quantised too: the sum is taken before anything is rounded. So only the shortcut is quantised, never
the output of the layer that the addition is fused with.
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


@dataclass(frozen=True)
class Placement:
    """What of a graph is in INT8.

    Attributes:
        int8: layers, in graph order.
        left_out: every other layer with weights, with the reason.
        edges: where activations are quantised: node, index of its input, and the value as the FP32
            graph names it.
        flops_share: FLOPs of the INT8 layers among those meant for it that can be, in 0..1; 1 where
            there are none.
        meant_flops: FLOPs of the layers meant for it that can be.
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
        model: the FP32 graph, with value_info for every value.
        keep: names of layers to leave out.
        also: names of layers to put in besides.
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
    """Every value that a placement could need a range for, each once, in graph order."""
    layers = weighted_layers(model)
    possible = {layer.name for layer in layers if not _cannot(layer)}
    edges = _edges(model, layers, possible)
    return tuple(dict.fromkeys(value for _, _, value in edges))


def _reason(layer: WeightedLayer, keep: Collection[str], also: Collection[str]) -> str | None:
    """Why a layer is not in INT8; None where it is."""
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
    """The residual additions of a graph.

    An Add of two computed values is one if (a) one of them is the output of a layer with weights
    that nothing else reads, and (b) the other is either a value that this layer was computed from
    (the block's input), or the output of a layer that reads such a value itself and has fewer
    layers with weights behind it (the shortcut's convolution). A pyramid's top-down addition is
    none: the upper level was not what the lateral convolution was computed from.

    Args:
        model: the graph.
        layers: its layers with weights.

    Returns:
        By the layer the addition is fused with: the Add's name, and the index of its shortcut
        input.
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
    """Every value that ``value`` is computed from, with the layers with weights between them.

    Along one of the paths where there are several: what is asked is only whether there are any
    layers, and within a branch that is so on all paths or on none.
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
