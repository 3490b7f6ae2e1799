"""Run a graph in ONNX Runtime and read its inner values, in bounded memory."""

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
"""Most bytes of values that one call returns; a value larger than that is read alone."""
THREADS: Final = 2
"""Threads of ONNX Runtime within a node. The number is fixed because sums are split by it: the last
bits, and so the ranges, would otherwise depend on the number of cores."""
OPEN_ROIS: Final = 100
"""Length assumed for an axis of open length: detections of a picture."""

Array = npt.NDArray[Any]


class Observer:
    """Runs a graph and reads some of its values.

    Values are read in groups that stay within a budget. Each group has its own session, with only
    the part of the graph that computes the group. Early values are large and need few weights, so
    sessions are small where values are large.

    Args:
        model: the FP32 graph, with ``value_info`` for every value; not changed.
        names: names of the float32 values to read, in graph order; inputs and outputs of the graph
            are allowed.
        keep: names of outputs that :meth:`run` also returns.
        budget: most bytes that one call of ONNX Runtime returns.

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

    def run(
        self, inputs: Mapping[str, Array], kept: dict[str, Array] | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Run the graph and yield the name and array of each value, one after the other.

        Args:
            inputs: the inputs of the graph, by name.
            kept: a dict that receives the outputs named in ``keep``, complete after the last value.

        Raises:
            DeployError: ONNX Runtime fails.
        """
        for name in self._fed:
            yield name, inputs[name]
        for group, session, takes in zip(self._groups, self._sessions, self._takes, strict=True):
            arrays: list[Any] = call(session, group, {name: inputs[name] for name in takes})
            for place, name in enumerate(group):
                array, arrays[place] = arrays[place], None  # memory is freed once it is read
                if kept is not None and name in self._keep:
                    kept[name] = array
                if name in self._observed:
                    yield name, array
                del array


def grouped(sizes: Mapping[str, int], budget: int) -> list[list[str]]:
    """Split names, in their order, into groups with at most ``budget`` bytes or a single name."""
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
    """Serialise the part of a graph that computes some of its values, as a model.

    Args:
        model: the graph; not changed.
        outputs: names of the values, which become the outputs of the part.
        known: ``value_info`` of each value, by name.
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
    """Return the rows of a batch's real pictures, without those that only fill up the batch.

    The first axis of every value that depends on pictures counts pictures, or what each picture has
    (N x 1000 proposals); the rows of one picture are adjacent.

    Args:
        array: a value of the graph; returned unchanged if its first axis is no multiple of
            ``batch``.
        real: number of real pictures, which come first.
        batch: number of pictures in the batch.
    """
    if real == batch or not array.ndim or len(array) % batch:
        return array
    return array[: len(array) // batch * real]
