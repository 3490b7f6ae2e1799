"""A graph's values by name: their types, makers and readers, and which nodes have weights."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from pointrend_deploy.graph.allowed_ops import WEIGHTED

FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})

_MOVING = """
Cast Concat DequantizeLinear Expand Gather GatherElements Identity Reshape Slice Split Squeeze
Transpose Unsqueeze
"""
_MOVES: Final = frozenset(_MOVING.split())
"""Ops that may stand between a constant and a weight that is a part of it."""


class Values:
    """A graph's values by name.

    Attributes:
        types: ONNX element type of every value whose type the file states.
        makers: by value, the node that computes it.
        readers: by value, the nodes that read it, with the index of the input, in graph order.
        constants: values that are constants, or are moved, gathered or cut from constants alone;
            the indices may be computed.

    Args:
        model: a graph with ``value_info`` for every value.
    """

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        declared = [*graph.input, *graph.value_info, *graph.output]
        self.types: dict[str, int] = {v.name: v.type.tensor_type.elem_type for v in declared}
        self.makers: dict[str, NodeProto] = {}
        self.readers: dict[str, list[tuple[NodeProto, int]]] = {}
        constants = {tensor.name for tensor in graph.initializer}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        for node in graph.node:
            self.makers.update(dict.fromkeys(node.output, node))
            for index, name in enumerate(node.input):
                if name:
                    self.readers.setdefault(name, []).append((node, index))
            if node.op_type == "Constant":
                self.types[node.output[0]] = constant_type(node)
                constants.add(node.output[0])
            elif node.op_type in _MOVES:
                read = [name for name in node.input if self.is_number(name)]
                if read and constants.issuperset(read):
                    constants.update(node.output)
        self.constants = frozenset(constants)

    def is_float(self, name: str) -> bool:
        """Return whether a value is float32 or float16."""
        return self.types.get(name) in FLOATS

    def is_number(self, name: str) -> bool:
        """Return whether a value is a float or INT8, and not an index, a size or a truth value."""
        return self.is_float(name) or self.types.get(name) == TensorProto.INT8

    def floats_read(self, node: NodeProto) -> list[str]:
        """Return the float inputs of a node that are no constants."""
        return [n for n in node.input if self.is_float(n) and n not in self.constants]

    def has_weights(self, node: NodeProto) -> bool:
        """Return whether a node is a layer with weights."""
        if node.op_type not in WEIGHTED or node.domain not in ("", "ai.onnx"):
            return False
        return not self.constants.isdisjoint(node.input[:2])


def constant_type(node: NodeProto) -> int:
    """Return the ONNX element type of a Constant node's value."""
    attribute = node.attribute[0]
    if attribute.type == onnx.AttributeProto.TENSOR:
        return int(attribute.t.data_type)
    if attribute.type in (onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS):
        return TensorProto.FLOAT
    return TensorProto.INT64


def weighted_names(model: ModelProto) -> tuple[str, ...]:
    """Return the names of the layers with weights, in graph order."""
    values = Values(model)
    return tuple(node.name for node in model.graph.node if values.has_weights(node))
