"""The values of a graph over inputs, in ONNX Runtime and in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy.typing as npt
import onnx

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.slices import nodes_behind, values_read
from pointrend_deploy.onnx_session import call, open_session

BUDGET: Final = 1 << 30
"""Bytes of values that one call may give; a value larger than that is fetched alone."""
THREADS: Final = 2
"""Of ONNX Runtime within a node, fixed: sums may be split otherwise with another number, and then
the last bits, and so the ranges, would depend on the machine's cores."""
OPEN_ROIS: Final = 100
"""What an axis without a fixed length counts as: detections of a picture."""

Array = npt.NDArray[Any]


class Observer:
    """A graph of which some values are read.

    Values are read in groups that stay within a budget. Each group has its own session, over that
    part of the graph alone that the group's values come from: early values are large and need few
    weights, so that sessions are small where the values are large.

    Args:
        model: the FP32 graph, with value_info for every value; unchanged when this returns.
        names: of float32 values to read, in graph order; may be the graph's inputs or outputs.
        keep: outputs that are given back by :meth:`run` besides.
        budget: bytes that one call of ONNX Runtime may give.

    Raises:
        DeployError: ONNX Runtime does not load a part of the graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        names: Sequence[str],
        keep: Sequence[str] = (),
        budget: int = BUDGET,
    ) -> None:
        graph = model.graph
        inputs = {value.name for value in graph.input}
        known = {v.name: v for v in (*graph.value_info, *graph.output, *graph.input)}
        self._fed = [name for name in names if name in inputs]
        self._keep = tuple(keep)
        computed = [name for name in names if name not in inputs]
        groups = grouped({name: _size(known[name]) for name in computed}, budget)
        if keep or not groups:
            groups = [*groups[:-1], [*(groups[-1] if groups else ()), *keep]]
        self._groups = [list(dict.fromkeys(group)) for group in groups]
        self._observed = frozenset(computed)
        self._sessions = [
            open_session(part_of(model, group, known), threads=THREADS, arena=False)
            for group in self._groups
        ]
        self._takes = [[arg.name for arg in s.get_inputs()] for s in self._sessions]

    @property
    def calls(self) -> int:
        """Calls of ONNX Runtime for one call of :meth:`run`."""
        return len(self._groups)

    def run(
        self, inputs: Mapping[str, Array], kept: dict[str, Array] | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Every value, one after the other.

        Args:
            inputs: of the graph, by name.
            kept: takes the outputs ``keep`` names, once all values are given.

        Raises:
            DeployError: ONNX Runtime fails.
        """
        for name in self._fed:
            yield name, inputs[name]
        for group, session, takes in zip(self._groups, self._sessions, self._takes, strict=True):
            arrays: list[Any] = call(session, group, {name: inputs[name] for name in takes})
            for place, name in enumerate(group):
                array, arrays[place] = arrays[place], None  # given back as soon as it is read
                if kept is not None and name in self._keep:
                    kept[name] = array
                if name in self._observed:
                    yield name, array
                del array


def grouped(sizes: Mapping[str, int], budget: int) -> list[list[str]]:
    """Names in their order, cut into runs whose sizes sum to at most the budget, or of one name."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = budget
        groups[-1].append(name)
        room -= size
    return groups


def _size(value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise DeployError(f"the value {value.name} of the FP32 graph is not FP32")
    sizes = (d.dim_value if d.HasField("dim_value") else OPEN_ROIS for d in kind.shape.dim)
    return 4 * math.prod(sizes)


def part_of(
    model: onnx.ModelProto, outputs: Sequence[str], known: Mapping[str, onnx.ValueInfoProto]
) -> bytes:
    """The part of a graph that some of its values come from, with them as its outputs.

    Args:
        model: unchanged.
        outputs: values of it.
        known: what is known of each.
    """
    nodes = nodes_behind(model.graph.node, outputs)
    needed = {name for node in nodes for name in values_read(node)}
    needed.update(outputs)
    part = onnx.GraphProto(name=model.graph.name)
    part.node.extend(nodes)
    part.input.extend(value for value in model.graph.input if value.name in needed)
    part.initializer.extend(each for each in model.graph.initializer if each.name in needed)
    part.output.extend(known[name] for name in outputs)
    whole = onnx.ModelProto(ir_version=model.ir_version, graph=part)
    whole.opset_import.extend(model.opset_import)
    whole.functions.extend(model.functions)
    raw: bytes = whole.SerializeToString()
    return raw


def real_rows(array: Array, real: int, batch: int) -> Array:
    """The rows of a batch's real pictures, where the last ones repeat a picture to fill it up.

    In every value of the graph that depends on pictures the first axis is theirs, alone or followed
    by what each has (N x 1000 proposals), so a picture's rows lie together.
    """
    if real == batch or not array.ndim or len(array) % batch:
        return array
    return array[: len(array) // batch * real]
