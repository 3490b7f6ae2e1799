"""Which nodes of a graph stay in FP32 when the rest is FP16 or INT8.

What decides is FP32: every float from which an index, a label, a comparison or a place follows, and
every float the graph gives, together with all that lies between it and the last layer with weights
or sampler before it. So selection sees logits that were rounded once, where a layer gave them, and
never what was rounded on the way. Coordinates, which come from integers or from boxes, are FP32
throughout. The rest is FP16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from pointrend_deploy.quantize.decisions import behind_decisions, decided, from_decided_alone
from pointrend_deploy.quantize.values import Values

FloatType = Literal["float16", "float32"]

FP32_INPUTS: Final[dict[str, tuple[int, ...]]] = {
    "PointRendSample": (1,),
    "PointRendRoIAlign": (0,),
    "Resize": (1, 2),
}
"""Inputs that are FP32 whatever the node computes in."""

_ONE_TYPE: Final = frozenset({"GridSample", "RoiAlign"})
"""Standard samplers, whose inputs are of one type: that of their coordinates."""
_NOT_ARITHMETIC: Final = frozenset({"Constant", "Shape"})
_LARGEST: Final = float(np.finfo(np.float16).max)


def node_types(model: ModelProto, keep_fp32: Collection[str] = ()) -> dict[str, FloatType]:
    """The type every node that computes with floats is to compute in.

    A sampler's type is that of its features; its points and boxes are FP32 in either.

    Args:
        model: an FP32 graph with ``value_info`` for every value; not changed.
        keep_fp32: names of further nodes that stay in FP32.

    Returns:
        By node name, in the graph's order, for nodes that read or give floats.
    """
    values = Values(model)
    behind = behind_decisions(model, values)
    fp32 = behind | _coordinates(model, values, behind) | _sampled_in_fp32(model, values)
    fp32 |= set(keep_fp32)
    types: dict[str, FloatType] = {}
    for node in model.graph.node:
        if node.op_type not in _NOT_ARITHMETIC and _computes_with_floats(values, node):
            types[node.name] = "float32" if node.name in fp32 else "float16"
    for name in _beyond_fp16(model, values, types):
        types[name] = "float32"
    return types


def _computes_with_floats(values: Values, node: NodeProto) -> bool:
    return any(values.is_float(name) for name in (*node.input, *node.output))


def _coordinates(model: ModelProto, values: Values, behind: set[str]) -> set[str]:
    """Nodes that compute on coordinates and on what decides alone, and give floats.

    Such are the offsets between a box and the cell it falls in, from which a graph that samples
    by gathering rows makes its weights. What reads features besides is none.
    """
    found = set()
    known = decided(model, values, behind)
    for node in model.graph.node:
        if from_decided_alone(values, node, known):
            found.add(node.name)
            known.update(name for name in node.output if values.is_float(name))
    return found


def _sampled_in_fp32(model: ModelProto, values: Values) -> set[str]:
    """Standard samplers, the casts before them, and sums of what they give alone.

    In a native graph they are what PointRendSample and PointRendRoIAlign are inside.
    """
    found = set()
    sampled: set[str] = set()
    for node in model.graph.node:
        adds = node.op_type == "Add" and sampled.issuperset(values.floats_read(node))
        if node.op_type in _ONE_TYPE or adds:
            found.add(node.name)
            sampled.update(node.output)
        elif node.op_type == "Cast" and values.is_float(node.input[0]):
            found.add(node.name)
    return found


def _beyond_fp16(model: ModelProto, values: Values, types: dict[str, FloatType]) -> Iterator[str]:
    """Nodes without weights that have a constant FP16 cannot hold: too large, or a divisor of 0.

    A single number that would become 0 counts too: it is a threshold or keeps a divisor from 0.
    """
    constants = constant_arrays(model)
    for node in model.graph.node:
        if types.get(node.name) != "float16" or values.has_weights(node):
            continue
        if not values.constants.isdisjoint(node.output):
            continue  # part of a weight: the layer that reads it decides
        for index, name in enumerate(node.input):
            if name not in constants or index in FP32_INPUTS.get(node.op_type, ()):
                continue
            array = constants[name]
            divides = array.size == 1 or (node.op_type == "Div" and index == 1)
            if overflows(array) or (divides and bool((array != 0).any()) and _vanishes(array)):
                yield node.name
                break


def constant_arrays(model: ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 constants of a graph by name."""
    found = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = onnx.helper.get_attribute_value(node.attribute[0])
            if isinstance(value, TensorProto):
                value = numpy_helper.to_array(value)
            elif isinstance(value, (float, list)):
                value = np.asarray(value)
                value = value.astype(np.float32) if value.dtype.kind == "f" else value
            if isinstance(value, np.ndarray) and value.dtype == np.float32:
                found[node.output[0]] = value
    return found


def overflows(array: npt.NDArray[np.float32]) -> bool:
    """Whether a finite value would become infinite in FP16."""
    if not array.size:
        return False
    finite = np.where(np.isfinite(array), np.abs(array), 0.0)
    return bool(finite.max() >= _LARGEST + 16)  # half a step above the largest number


def _vanishes(array: npt.NDArray[np.float32]) -> bool:
    with np.errstate(under="ignore"):
        return bool(((array != 0) & (array.astype(np.float16) == 0)).any())
