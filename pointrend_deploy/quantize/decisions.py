"""Where a graph decides: the inputs from which an index, a label or a place follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from onnx import NodeProto, TensorProto, helper

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
