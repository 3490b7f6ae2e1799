"""Where a graph decides: the inputs from which an index, a label or a place follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from onnx import ModelProto, NodeProto, TensorProto, helper

from pointrend_deploy.quantize.values import FLOATS, Values

SAMPLERS: Final = frozenset({"PointRendSample", "PointRendRoIAlign", "GridSample", "RoiAlign"})
"""Ops that read features at places."""
PLACES: Final[Mapping[str, int]] = {
    "PointRendSample": 1,
    "PointRendRoIAlign": 0,
    "GridSample": 1,
    "RoiAlign": 1,
}
"""Input of each sampler that says where: points or boxes."""

MIXES: Final = SAMPLERS | {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Ops that turn coordinates into something else, if they take them at all."""

_CHOOSES: Final[Mapping[str, tuple[int, ...]]] = {
    "ArgMax": (0,),
    "TopK": (0,),
    "PointRendUncertain": (0,),
    "PointRendNMS": (0, 1),
    "NonMaxSuppression": (0, 1, 3, 4),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (0, 1)),
}


def deciding_inputs(values: Values, node: NodeProto) -> tuple[int, ...]:
    """Float inputs of a node from which an integer or a truth value, or a place, follows."""
    if node.op_type == "Cast":
        return (0,) if values.is_float(node.input[0]) and cast_to(node) not in FLOATS else ()
    found = _CHOOSES.get(node.op_type, ())
    if node.op_type in PLACES:
        found = (PLACES[node.op_type],)
    return tuple(i for i in found if i < len(node.input) and values.is_float(node.input[i]))


def decisions(values: Values, nodes: Iterator[NodeProto]) -> Iterator[tuple[NodeProto, str]]:
    """Every deciding input: the node that reads it and the value."""
    for node in nodes:
        for index in deciding_inputs(values, node):
            yield node, node.input[index]


def cast_to(node: NodeProto) -> int:
    """Element type a Cast gives."""
    for attribute in node.attribute:
        if attribute.name == "to":
            return int(helper.get_attribute_value(attribute))
    return int(TensorProto.UNDEFINED)


def stops(values: Values, node: NodeProto) -> bool:
    """Whether a node is a layer or sampler, before which rounding is FP16's own business."""
    return node.op_type in SAMPLERS or values.has_weights(node)


def behind_decisions(model: ModelProto, values: Values) -> set[str]:
    """Nodes that decide, and those between them and the layers and samplers before them."""
    found = set()
    pending = []
    for node, value in decisions(values, iter(model.graph.node)):
        pending.append(value)
        if not stops(values, node):
            found.add(node.name)
    pending += [out.name for out in model.graph.output if values.is_float(out.name)]
    seen: set[str] = set()
    while pending:
        value = pending.pop()
        maker = values.makers.get(value)
        if value in seen or maker is None:
            continue
        seen.add(value)
        if not stops(values, maker):
            found.add(maker.name)
            pending += [name for name in maker.input if values.is_float(name)]
    return found


def decided(model: ModelProto, values: Values, behind: set[str]) -> set[str]:
    """Floats that nodes behind decisions read from outside, boxes say, or give."""
    given = {value.name for value in model.graph.input}
    return {
        name
        for node in model.graph.node
        if node.name in behind
        for name in (*given.intersection(node.input), *node.output)
        if values.is_float(name)
    }


def from_decided_alone(values: Values, node: NodeProto, known: set[str]) -> bool:
    """Whether a node gives floats made of integers, or of nothing but floats in ``known``."""
    if node.op_type == "Cast" and not values.is_float(node.input[0]):
        return values.is_float(node.output[0])
    read = values.floats_read(node)
    return bool(read) and known.issuperset(read) and node.op_type not in MIXES
