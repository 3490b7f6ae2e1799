"""Choose the nodes of a graph that stay in FP32 when the rest is FP16 or INT8.

A node decides if an index, a label, a comparison or a position follows from its float input. FP32
are:

- every such input and every float output of the graph, and all nodes between it and the nearest
  layer with weights or sampler before it. Selection therefore sees logits that were rounded once,
  at the output of a layer, and never again on the way.
- coordinates, which are computed from integers or from boxes, throughout.
- group norms with the ReLU after them: squares of values above 256 are beyond FP16. A strongly
  typed network of TensorRT takes the type of a norm's input as the type to compute in (NvInfer.h,
  INormalizationLayer). What they read and what leaves them is FP16.

The rest is FP16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pointrend_deploy.quantize.values import FLOATS, Values

FloatType = Literal["float16", "float32"]
FP32_INPUTS: Final[dict[str, tuple[int, ...]]] = {
    "PointRendSample": (1,),
    "PointRendSampleRoIs": (3, 4),
    "PointRendRoIAlign": (0,),
    "PointRendRoIAlignFixed": (0,),
    "Resize": (1, 2),
}
"""By op, the inputs that are FP32 in every graph."""
READS_AS_MADE: Final[dict[str, tuple[int, ...]]] = {
    "PointRendUpsampleUncertainty": (0,),
    "PointRendUpsampleLabels": (0,),
    "PointRendRefineLogits": (0, 2),
    "PointRendRefineLabels": (2,),
}
"""By op that decides, the inputs that are read in the type they are made in.

The ops that upsample and refine compute in FP32 whatever the logits are: a cast before them changes
nothing.
"""
TAKES_EITHER: Final = {"Cast": (0,), "CastLike": (0,), **READS_AS_MADE}
"""By op, the inputs that are not cast."""
_ONE_TYPE: Final = frozenset({"GridSample", "RoiAlign"})
"""Standard samplers: their inputs have one type, so features are FP32 as their coordinates are."""
GROUP_NORM: Final = "InstanceNormalization"
"""The op that computes the means and variances of a group norm."""
_AFTER_NORM: Final = frozenset({"Reshape", "Mul", "Add", "Relu"})
"""Ops that a group norm ends in, the last two of them with constants, and the ReLU."""
_NOT_ARITHMETIC: Final = frozenset({"Constant", "Shape"})
_LARGEST: Final = float(np.finfo(np.float16).max)
PLACES: Final[Mapping[str, tuple[int, ...]]] = {
    "PointRendSample": (1,),
    "PointRendSampleCells": (),
    "PointRendSampleRoIs": (3, 4),
    "PointRendRoIAlign": (0,),
    "PointRendRoIAlignFixed": (0,),
    "GridSample": (1,),
    "RoiAlign": (1,),
}
"""By sampler, the inputs with the positions: points or boxes."""
SAMPLERS: Final = frozenset(PLACES)
"""Ops that read features at real-valued positions."""
MIXES: Final = SAMPLERS | {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Ops whose outputs are no coordinates, even if an input is."""
_CHOOSES: Final[Mapping[str, tuple[int, ...]]] = {
    "ArgMax": (0,),
    "TopK": (0,),
    "PointRendUncertain": (0,),
    "PointRendNMS": (0, 1),
    "PointRendUpsampleUncertainty": (0,),
    "PointRendUpsampleLabels": (0,),
    "PointRendRefineLabels": (2,),
    "NonMaxSuppression": (0, 1, 3, 4),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (0, 1)),
}
"""By op, the inputs from which an index, a truth value or an uncertainty follows."""


def node_types(model: ModelProto, keep_fp32: Collection[str] = ()) -> dict[str, FloatType]:
    """Choose the type in which every node that computes with floats is to compute.

    The type of a sampler is that of its features; its points and boxes are FP32 in any case.

    Args:
        model: an FP32 graph with ``value_info`` for every value; not changed.
        keep_fp32: names of further nodes to keep in FP32.

    Returns:
        The type by node name, in the order of the graph, for nodes that read or write floats.
    """
    values = Values(model)
    behind = behind_decisions(model, values)
    fp32 = behind | _coordinates(model, values, behind) | _sampled_in_fp32(model, values)
    fp32 |= _group_norms(model, values) | set(keep_fp32)
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
    """Find the nodes that compute floats from coordinates and deciding values alone.

    An example is the offset between a box and the cell it falls in, from which a graph that samples
    by gathering rows computes its weights. A node that reads features too is not one of them.
    """
    found = set()
    known = decided(model, values, behind)
    for node in model.graph.node:
        if from_decided_alone(values, node, known):
            found.add(node.name)
            known.update(name for name in node.output if values.is_float(name))
    return found


def _sampled_in_fp32(model: ModelProto, values: Values) -> set[str]:
    """Find the standard samplers, the casts before them, and sums of nothing but their outputs.

    In a native graph these nodes are the bodies of PointRendSample and of both RoIAligns; one of
    these puts zeros in the place of some outputs before the sum.
    """
    found = set()
    sampled: set[str] = set()
    for node in model.graph.node:
        read = values.floats_read(node)
        adds = node.op_type in ("Add", "Where") and bool(read) and sampled.issuperset(read)
        if node.op_type in _ONE_TYPE or adds:
            found.add(node.name)
            sampled.update(node.output)
        elif node.op_type == "Cast" and values.is_float(node.input[0]):
            found.add(node.name)
    return found


def _group_norms(model: ModelProto, values: Values) -> set[str]:
    """Find the nodes of group norms, each with the ReLU that alone reads it.

    Whole they become one kernel of TensorRT-RTX 1.7, which reads and writes FP16; with a cast on
    either side of the InstanceNormalization alone they become three, with FP32 between them.
    """
    found = set()
    for node in model.graph.node:
        if node.op_type != GROUP_NORM:
            continue
        found.add(node.name)
        before = values.makers.get(node.input[0])
        if before is not None and before.op_type == "Reshape":
            found.add(before.name)
        readers = values.readers.get(node.output[0], [])
        while len(readers) == 1 and readers[0][0].op_type in _AFTER_NORM:
            (after, index) = readers[0]
            if not values.constants.issuperset(name for name in after.input[:index] if name):
                break
            if not values.constants.issuperset(name for name in after.input[index + 1 :] if name):
                break
            found.add(after.name)
            readers = [] if after.op_type == "Relu" else values.readers.get(after.output[0], [])
    return found


def _beyond_fp16(model: ModelProto, values: Values, types: dict[str, FloatType]) -> Iterator[str]:
    """Find the nodes without weights that have a constant FP16 cannot represent.

    The constant is too large, or it is a divisor or a single number (a threshold, or a term that
    keeps a divisor from 0) that would become 0.
    """
    constants = constant_arrays(model)
    for node in model.graph.node:
        if types.get(node.name) != "float16" or values.has_weights(node):
            continue
        if not values.constants.isdisjoint(node.output):
            continue  # part of a weight: the type is that of the layer that reads it
        for index, name in enumerate(node.input):
            if name not in constants or index in FP32_INPUTS.get(node.op_type, ()):
                continue
            array = constants[name]
            divides = array.size == 1 or (node.op_type == "Div" and index == 1)
            if overflows(array) or (divides and bool((array != 0).any()) and _vanishes(array)):
                yield node.name
                break


def behind_decisions(model: ModelProto, values: Values) -> set[str]:
    """Find the names of nodes that decide or lie between one and the layers before it."""
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
    """Find the floats that nodes in ``behind`` write, or read from the graph's inputs (boxes)."""
    given = {value.name for value in model.graph.input}
    return {
        name
        for node in model.graph.node
        if node.name in behind
        for name in (*given.intersection(node.input), *node.output)
        if values.is_float(name)
    }


def from_decided_alone(values: Values, node: NodeProto, known: set[str]) -> bool:
    """Return whether a node's float outputs follow from integers, or only from ``known`` floats."""
    if node.op_type == "Cast" and not values.is_float(node.input[0]):
        return values.is_float(node.output[0])
    read = values.floats_read(node)
    return bool(read) and known.issuperset(read) and node.op_type not in MIXES


def deciding_inputs(values: Values, node: NodeProto) -> tuple[int, ...]:
    """Return the indices of a node's float inputs from which an index or position follows."""
    if node.op_type == "Cast":
        return (0,) if values.is_float(node.input[0]) and cast_to(node) not in FLOATS else ()
    found = _CHOOSES.get(node.op_type, ())
    if node.op_type in PLACES:
        found = PLACES[node.op_type]
    return tuple(i for i in found if i < len(node.input) and values.is_float(node.input[i]))


def decisions(values: Values, nodes: Iterator[NodeProto]) -> Iterator[tuple[NodeProto, str]]:
    """Yield every deciding input of some nodes: the node and the name of the value it reads."""
    for node in nodes:
        for index in deciding_inputs(values, node):
            yield node, node.input[index]


def stops(values: Values, node: NodeProto) -> bool:
    """Return whether a node is a layer with weights or a sampler, where an FP32 island ends."""
    return node.op_type in SAMPLERS or values.has_weights(node) or _takes_rows(values, node)


def _takes_rows(values: Values, node: NodeProto) -> bool:
    """Return whether a node multiplies by rows of a weight, one a RoI, and a sum follows.

    Together they are the product of a predictor of which only the predicted class's row is read.
    """
    rows = [name for name in node.input if name in values.constants and name in values.makers]
    if node.op_type != "Mul" or len(rows) != 1:
        return False
    readers = values.readers.get(node.output[0], [])
    while len(readers) == 1 and readers[0][0].op_type == "Cast":
        readers = values.readers.get(readers[0][0].output[0], [])
    return [reader.op_type for reader, _ in readers] == ["ReduceSum"]


def cast_to(node: NodeProto) -> int:
    """Return the ONNX element type that a Cast node casts to."""
    for attribute in node.attribute:
        if attribute.name == "to":
            return int(helper.get_attribute_value(attribute))
    return int(TensorProto.UNDEFINED)


def constant_arrays(model: ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """Return the float32 constants of a graph, initializers and Constant nodes, by name."""
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
    """Return whether a finite element would become infinite in FP16."""
    if not array.size:
        return False
    finite = np.where(np.isfinite(array), np.abs(array), 0.0)
    return bool(finite.max() >= _LARGEST + 16)  # half a step above the largest number


def _vanishes(array: npt.NDArray[np.float32]) -> bool:
    with np.errstate(under="ignore"):
        return bool(((array != 0) & (array.astype(np.float16) == 0)).any())
