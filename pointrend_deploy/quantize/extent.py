"""How far the values of an FP32 graph reach, and which of them FP16 cannot hold.

FP16 ends at 65504; what is beyond it is clipped or becomes infinite. Numbers below 6.1e-5 have
fewer digits in FP16, and below 3e-8 they become 0. :func:`measuring` and :func:`counting` add nodes
to the FP32 graph, so that ONNX Runtime measures its values and none of them is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pointrend_deploy.quantize.islands import FP32_INPUTS, FloatType, constant_arrays
from pointrend_deploy.quantize.values import Values

Array = npt.NDArray[Any]

LARGEST: Final = float(np.finfo(np.float16).max)
"""Largest finite number of FP16: 65504."""
SMALLEST_NORMAL: Final = 2.0**-14
"""Below this absolute value, 6.1e-5, numbers of FP16 have fewer digits."""
_BOUNDING: Final = frozenset({"Relu", "Clip"})
"""Ops for which a large input may do no harm; their output is looked at in its place."""
_MOST: Final = "extent.most"
_LEAST: Final = "extent.least"
_REACHING: Final = "extent.reaching"
_COUNT: Final = "extent.count"
"""Names of the values that hold what was measured begin with these; a colon and a name follow."""


@dataclass
class Extents:
    """Takes the outputs of :func:`measuring` and :func:`counting`, over all calls of the graphs.

    Attributes:
        largest: by graph file and value, the largest absolute number; values of a graph that never
            ran are missing.
        shares: by graph file and value, the elements that reach its bound, and all its elements.
    """

    largest: dict[str, dict[str, float]] = field(default_factory=dict)
    shares: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)

    def add(self, file: str, arrays: Mapping[str, Array]) -> None:
        """Take one call of a graph.

        Args:
            file: name of the graph's file.
            arrays: its outputs; those that no measuring node made are ignored.
        """
        largest, shares = self.largest.setdefault(file, {}), self.shares.setdefault(file, {})
        for name, array in arrays.items():
            kind, _, value = name.partition(":")
            if kind in (_MOST, _LEAST):
                largest[value] = max(largest.get(value, 0.0), self._size(kind, float(array)))
            elif kind == _REACHING:
                reaching, count = shares.get(value, (0, 0))
                size = int(arrays[f"{_COUNT}:{value}"])
                shares[value] = reaching + int(array), count + size

    @staticmethod
    def _size(kind: str, number: float) -> float:
        return number if kind == _MOST else -number


@dataclass(frozen=True)
class HalfValue:
    """A value of an FP32 graph that is FP16 in the graph made from it.

    Attributes:
        makers: the nodes that compute it in FP16: one, and the layer before a ReLU; empty if it is
            computed in FP32.
        readers: the nodes that read it in FP16, in graph order.
    """

    makers: tuple[str, ...]
    readers: tuple[str, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """All of these nodes, in graph order."""
        return tuple(dict.fromkeys((*self.makers[::-1], *self.readers)))


def observed(model: ModelProto, types: Mapping[str, FloatType]) -> tuple[str, ...]:
    """Return the values of an FP32 graph that some node computes or reads in FP16.

    A value that only ReLU and Clip nodes read is left out, because a large number may do no harm
    there; their outputs are among the values.

    Args:
        model: the FP32 graph.
        types: by name of a node, the type it computes in.
    """
    values = Values(model)
    outputs = {output.name for output in model.graph.output}
    names = [each.name for each in model.graph.input]
    names += [name for node in model.graph.node for name in node.output]
    found = []
    for name in names:
        readers = values.readers.get(name, [])
        if not values.is_float(name) or name in values.constants:
            continue
        if readers and name not in outputs and _only_bounded(readers):
            continue
        maker = values.makers.get(name)
        made_half = maker is not None and types.get(maker.name) == "float16"
        if made_half or any(_reads_half(node, index, types) for node, index in readers):
            found.append(name)
    return tuple(found)


def _only_bounded(readers: Collection[tuple[NodeProto, int]]) -> bool:
    return all(node.op_type in _BOUNDING and index == 0 for node, index in readers)


def _reads_half(node: NodeProto, index: int, types: Mapping[str, FloatType]) -> bool:
    half = types.get(node.name) == "float16"
    return half and index not in FP32_INPUTS.get(node.op_type, ())


def half_values(fp32: ModelProto, made: ModelProto, names: Collection[str]) -> dict[str, HalfValue]:
    """Find which values of an FP32 graph are FP16 in the FP16 or INT8 graph made from it.

    Args:
        fp32: the FP32 graph.
        made: the graph made from it; nodes have the names they had.
        names: values of the FP32 graph, from :func:`observed`.
    """
    before, after = Values(fp32), Values(made)
    nodes = {node.name: node for node in made.graph.node}

    def computed_in_half(value: str) -> bool:
        kinds = (after.types.get(name) for name in (value, f"{value}.fp16"))
        return value in before.makers and TensorProto.FLOAT16 in kinds

    def read_in_half(node: NodeProto, index: int) -> bool:
        new = nodes.get(node.name)
        return new is not None and after.types.get(new.input[index]) == TensorProto.FLOAT16

    found = {}
    for name in names:
        makers = []
        value = name
        while computed_in_half(value):
            maker = before.makers[value]
            makers.append(maker.name)
            if maker.op_type not in _BOUNDING:
                break
            value = maker.input[0]
        readers = before.readers.get(name, [])
        half = [node.name for node, index in readers if read_in_half(node, index)]
        if makers or half:
            found[name] = HalfValue(tuple(makers), tuple(dict.fromkeys(half)))
    return found


def measuring(model: ModelProto, names: Collection[str]) -> tuple[ModelProto, tuple[str, ...]]:
    """Copy an FP32 graph and add nodes that take the largest and the least number of some values.

    before: conv -> conv.out
    after:  conv -> conv.out -> ReduceMax; -> ReduceMin

    Args:
        model: the FP32 graph, of opset 18 or higher; not changed.
        names: the values.

    Returns:
        The graph, and the names of its values that :class:`Extents` takes.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    made = []
    for name in names:
        for op, kind in (("ReduceMax", _MOST), ("ReduceMin", _LEAST)):
            made.append(f"{kind}:{name}")
            copy.graph.node.append(helper.make_node(op, [name], [made[-1]], made[-1], keepdims=0))
    return copy, tuple(made)


def counting(model: ModelProto, bounds: Mapping[str, float]) -> tuple[ModelProto, tuple[str, ...]]:
    """Copy an FP32 graph and add nodes that count the elements of some values that reach a bound.

    before: conv -> conv.out
    after:  conv -> conv.out -> Abs -> GreaterOrEqual -> Cast -> ReduceSum; -> Size

    Args:
        model: the FP32 graph, of opset 18 or higher; not changed.
        bounds: by value, the least absolute number that counts. Infinite ones count as well.

    Returns:
        The graph, and the names of its values that :class:`Extents` takes.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    made: list[str] = []

    def node(op: str, out: str, *inputs: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(op, inputs, [out], out, **attributes))
        return out

    for name, bound in bounds.items():
        inner = f"extent.inner.{name}"
        limit = numpy_helper.from_array(np.array(bound, np.float32), f"{inner}.bound")
        graph.initializer.append(limit)
        large = node("GreaterOrEqual", f"{inner}.large", node("Abs", inner, name), limit.name)
        whole = node("Cast", f"{inner}.int32", large, to=TensorProto.INT32)
        made.append(node("ReduceSum", f"{_REACHING}:{name}", whole, keepdims=0))
        made.append(node("Size", f"{_COUNT}:{name}", name))
    return copy, tuple(made)


def int8_limits(model: ModelProto) -> dict[str, float]:
    """Return the largest number that INT8 holds, by name of each quantised value of the graph.

    Args:
        model: an INT8 graph; a cast or Clip before QuantizeLinear is looked through, so that the
            names are those of the FP32 graph.
    """
    makers = Values(model).makers
    scales = {t.name: t for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        value = node.input[0]
        while (maker := makers.get(value)) is not None and _is_added(maker):
            value = maker.input[0]
        found[value] = 127.0 * float(numpy_helper.to_array(scales[node.input[1]]))
    return found


def _is_added(node: NodeProto) -> bool:
    """Return whether a node is a Cast or Clip that the change of precision added."""
    return node.name.endswith((".to_fp16", ".to_fp32", ".bounded"))


def zeroed_weights(fp32: ModelProto, made: ModelProto) -> tuple[int, int]:
    """Count the weights that are FP16 in a graph, and those of them that became 0.

    Args:
        fp32: the FP32 graph.
        made: the FP16 or INT8 graph made from it.
    """
    before = constant_arrays(fp32)
    total = zeroed = 0
    for tensor in made.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16 and tensor.name in before:
            was = before[tensor.name]
            total += was.size
            zeroed += int(((was != 0) & (numpy_helper.to_array(tensor) == 0)).sum())
    return total, zeroed
