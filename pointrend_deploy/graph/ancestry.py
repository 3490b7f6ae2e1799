"""Which nodes of a graph some of its values come from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from onnx import NodeProto


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
