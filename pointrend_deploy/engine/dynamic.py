"""Give the dynamic dimensions in a table of layers their values.

TensorRT-RTX writes -1 for a dimension that follows from a dynamic one, whether it is R itself or
784 R. What it is follows from the graph's own values and from the other layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from pointrend_deploy.engine.layers import Layer, Operand

_SUFFIX: Final = re.compile(r"(?:\.\d+)?_myl\d+$")
"""What TensorRT-RTX adds to the name of a value of the graph."""

_Key = tuple[str, tuple[int, ...]]
"""A tensor's name and the shape in which a layer sees it."""


def with_sizes(
    layers: Sequence[Layer], elements: Mapping[str, int], least: int
) -> tuple[Layer, ...]:
    """Replace every -1 in the shapes of a table of layers.

    The number of elements of a value of the graph is known. Other tensors have the dimension of a
    tensor of the same shape in a layer that reads or writes both, or of another view of themselves
    that is open at the same place, and so on from layer to layer. What then is still open gets the
    least that it can be, so that its bytes are not overstated.

    Args:
        layers: of an engine, in order.
        elements: number of elements of the graph's values, by name.
        least: value of the dynamic dimension, of which every open one is a multiple.
    """
    found: dict[_Key, int] = {}
    for key in set(_open_keys(layers)):
        name, shape = key
        rest = _static(shape)
        count = elements.get(_SUFFIX.sub("", name), 0)
        if count and rest and count % rest == 0:
            found[key] = count // rest
    groups = [*_views(layers), *_alike(layers)]
    before = -1
    while before != len(found):
        before = len(found)
        for group in groups:
            known = {found[key] for key in group if key in found}
            if len(known) == 1:
                found |= dict.fromkeys(group, known.pop())

    def closed(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
        return tuple(
            msgspec.structs.replace(
                operand,
                shape=tuple(
                    found.get((operand.name, operand.shape), least) if size < 0 else size
                    for size in operand.shape
                ),
            )
            for operand in operands
        )

    return tuple(
        msgspec.structs.replace(
            layer,
            inputs=closed(layer.inputs),
            constants=closed(layer.constants),
            outputs=closed(layer.outputs),
        )
        for layer in layers
    )


def _open_keys(layers: Iterable[Layer]) -> Iterator[_Key]:
    """Tensors with one open dimension; two in one tensor cannot be told apart."""
    for layer in layers:
        for operand in (*layer.inputs, *layer.outputs):
            if operand.name and operand.shape.count(-1) == 1:
                yield operand.name, operand.shape


def _static(shape: tuple[int, ...]) -> int:
    return math.prod(size for size in shape if size >= 0)


def _views(layers: Iterable[Layer]) -> list[set[_Key]]:
    """Views of one tensor that are open at the same place and have as many dimensions."""
    groups: dict[tuple[str, int, int], set[_Key]] = {}
    for name, shape in _open_keys(layers):
        groups.setdefault((name, len(shape), shape.index(-1)), set()).add((name, shape))
    return list(groups.values())


def _alike(layers: Iterable[Layer]) -> list[set[_Key]]:
    """Tensors of a layer that have the same shape; of a product of matrices, as many rows."""
    groups: list[set[_Key]] = []
    for layer in layers:
        alike: dict[tuple[int, ...] | str, set[_Key]] = {}
        for key in _open_keys([layer]):
            rows = len(key[1]) == 2 and key[1][0] == -1
            alike.setdefault("rows" if rows and _is_product(layer) else key[1], set()).add(key)
        groups += alike.values()
    return groups


def _is_product(layer: Layer) -> bool:
    return layer.product or "fusion" in layer.kind
