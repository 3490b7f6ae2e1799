"""Which nodes of a graph some of its values come from.

MERGED: Keep some of a graph's outputs; the values behind the others keep their names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto

Array = npt.NDArray[Any]


def nodes_behind(
    nodes: Sequence[NodeProto], values: Iterable[str], stop: Collection[str] = ()
) -> list[NodeProto]:
    """The nodes that values are computed by, in their order.

    Args:
        nodes: each follows what it reads.
        values: names.
        stop: values whose nodes, and what lies before them, are left out.
    """
    needed, ends = set(values), set(stop)
    found = []
    for node in reversed(nodes):
        if needed.isdisjoint(node.output) or not ends.isdisjoint(node.output):
            continue
        found.append(node)
        needed.update(values_read(node))
    return found[::-1]


def values_read(node: NodeProto) -> Iterator[str]:
    """Values a node reads, those read inside its branches included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from values_read(inner)
            for output in attribute.g.output:
                yield output.name


def keep_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Turn every other output into an inner value, and drop what nothing needs any more.

    The outputs come in the order of ``names``.

    before: outputs labels, p2, ..., p6, coarse, step0.indices, ...
    after:  output labels; inner values p2, ..., coarse, step0.indices, ...; no p6

    So a graph that gives only labels still calls its stages by their names, and verification can
    ask for them by marking them as outputs again.
    """
    if list(names) == [output.name for output in model.graph.output]:
        return model
    graph = gs.import_onnx(model)
    outputs = {output.name: output for output in graph.outputs}
    graph.outputs = [outputs[name] for name in names]
    graph.cleanup()
    kept: onnx.ModelProto = gs.export_onnx(graph)
    kept.functions.extend(
        f for f in model.functions if f.name not in {g.name for g in kept.functions}
    )
    return kept


def cut_at(
    graph: onnx.ModelProto, inputs: Mapping[str, Array], outputs: Collection[str]
) -> onnx.ModelProto:
    """What of a graph lies between some of its values and some of its outputs.

    Args:
        graph: not changed.
        inputs: arrays of the types and shapes of values that become its inputs, by their names.
            They must be all that the outputs depend on.
        outputs: names of outputs to keep.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(graph)
    for field in ("node", "input", "output", "value_info", "initializer"):
        cut.graph.ClearField(field)
    cut.graph.output.extend(value for value in graph.graph.output if value.name in outputs)
    for name, array in inputs.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        cut.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    cut.graph.node.extend(nodes_behind(graph.graph.node, outputs, stop=inputs.keys()))
    read = {name for node in cut.graph.node for name in node.input}
    cut.graph.initializer.extend(w for w in graph.graph.initializer if w.name in read)
    return cut
