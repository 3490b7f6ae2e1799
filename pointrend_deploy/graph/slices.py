"""Parts of a graph: the nodes some values come from, further outputs, fewer outputs, a cut."""

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
    """Find the nodes that values are computed by, in the order of ``nodes``.

    Args:
        nodes: each follows the nodes whose values it reads.
        values: names of values.
        stop: values whose nodes, and the nodes before those, are left out.
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
    """Yield the values a node reads, those read inside its branches included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from values_read(inner)
            for output in attribute.g.output:
                yield output.name


def with_outputs(model: onnx.ModelProto, values: Iterable[str]) -> tuple[bytes, list[str]]:
    """Serialise a model with some of its inner values as outputs besides its own.

    Args:
        model: unchanged when this returns; its weights are not copied.
        values: names; those that no node computes are left out.

    Returns:
        The bytes, and the names of all outputs in order. The further outputs carry no type, which
        ONNX Runtime infers, so that graphs of every precision are marked alike.
    """
    count = len(model.graph.output)
    computed = {value for node in model.graph.node for value in node.output}
    computed -= {output.name for output in model.graph.output}
    further = [value for value in dict.fromkeys(values) if value in computed]
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in further)
    try:
        return model.SerializeToString(), [output.name for output in model.graph.output]
    finally:
        del model.graph.output[count:]


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


def cut(
    model: onnx.ModelProto, outputs: Sequence[str], inputs: Mapping[str, Array] | None = None
) -> onnx.ModelProto:
    """Copy the part of a model that computes some of its values, as a model of its own.

    Args:
        model: not changed.
        outputs: names of values, inner ones or outputs, in the order the part gives them.
        inputs: by name, arrays of the types and shapes of values that the part takes instead of
            computing them; all that ``outputs`` depend on but weights. When None, the part takes
            those inputs of the model that it reads.

    Returns:
        The part, with no other nodes and weights. ONNX Runtime infers the types of inner values.
    """
    graph = model.graph
    nodes = nodes_behind(graph.node, outputs, stop=() if inputs is None else inputs.keys())
    read = {value for node in nodes for value in values_read(node)}
    if inputs is None:
        taken = [value for value in graph.input if value.name in read]
    else:
        taken = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ]
    own = {output.name: output for output in graph.output}
    part = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    part.graph.name = graph.name
    part.graph.node.extend(nodes)
    part.graph.input.extend(taken)
    part.graph.output.extend(own.get(name, onnx.ValueInfoProto(name=name)) for name in outputs)
    part.graph.initializer.extend(weight for weight in graph.initializer if weight.name in read)
    return part
