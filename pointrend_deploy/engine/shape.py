"""Count an engine's layers and bytes in its table of layers, by part of the network.

The figures say what a graph costs a GPU before anything is computed: every layer is a launch, and
what it lists as inputs and outputs is read and written. Nothing here is measured.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from pointrend_deploy.bundle.records import EngineShape, PartShape
from pointrend_deploy.engine.layers import Layer, Operand

BANDWIDTHS_GB_S: Final = {
    "Jetson AGX Orin": 204.8,
    "Jetson Orin NX 16 GB": 102.4,
    "Jetson Orin Nano 8 GB": 68.0,
    "Jetson Orin Nano 8 GB Super": 102.0,
    "Jetson AGX Thor": 273.0,
}
"""Memory bandwidth in 10^9 bytes a second, as NVIDIA's data sheets of these modules state it."""

REST: Final = "rest"
PARTS: Final = ("backbone", "RPN and box head", "semantic head", "mask head", "subdivision", REST)
"""Parts of a network, in the order they run. The backbone has the FPN and the normalisation."""

_BEGINNINGS: Final = (
    ("mask head", re.compile(r"roi_heads\.mask_head\b")),
    ("RPN and box head", re.compile(r"proposal_generator\b|roi_heads\b|detector\b|p\d+\.")),
    ("subdivision", re.compile(r"sem_seg_head\.point_head\b|step\d+\.|subdivision\b")),
    ("semantic head", re.compile(r"sem_seg_head\b")),
    ("backbone", re.compile(r"backbone\b|normalise\b|image\b")),
)
"""How the names of a part's nodes begin, which are its modules' paths. The first that fits."""

_BYTES: Final = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "int32": 4,
    "int64": 8,
}
_PLUGIN: Final = re.compile(r"custom_layer|plugin", re.IGNORECASE)
_MOVES: Final = re.compile(
    r"reformat|shuffle|copy|slice|concatenation|transpose|cast", re.IGNORECASE
)
_SYNCHRONISE: Final = frozenset({"signal", "wait", "shape_call", "NoOp"})
"""Kinds that launch nothing: they order streams or compute shapes on the host."""
_KERNEL: Final = re.compile(r"__myl_((?:[A-Z][a-z]*)+)_")
_WORD: Final = re.compile(r"[A-Z][a-z]*")
_MOVING_WORDS: Final = frozenset(
    {"Tran", "Resh", "Move", "Copy", "Slic", "Conc", "Repl", "Cast", "Pad"}
)


def shape_of(
    layers: Iterable[Layer],
    plugins: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> EngineShape:
    """Count the layers and bytes of an engine.

    Args:
        layers: of the engine, in the order they run.
        plugins: op of each node that is a plugin, by the node's name.
        sizes: value of each dynamic dimension.
    """
    plugins, sizes = plugins or {}, dict(sizes or {})
    open_size = max(sizes.values(), default=1)
    ops: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
    constant_bytes, before = 0, REST
    for layer in layers:
        if layer.kind in _SYNCHRONISE:
            continue
        before = part = part_of(layer, before)
        count = counts[part]
        count["layers"] += 1
        count["bytes"] += _bytes((*layer.inputs, *layer.outputs), open_size)
        constant_bytes += _bytes(layer.constants, open_size)
        if _PLUGIN.search(layer.kind):
            count["plugins"] += 1
            ops[next((plugins[node] for node in layer.nodes if node in plugins), "?")] += 1
        elif only_moves(layer):
            count["reformats"] += 1
    total = sum(counts.values(), Counter())
    parts = {
        part: PartShape(**{key: count[key] for key in PartShape.__struct_fields__})
        for part, count in counts.items()
        if count
    }
    return EngineShape(
        layers=total["layers"],
        plugins=dict(sorted(ops.items())),
        reformats=total["reformats"],
        bytes=total["bytes"],
        constant_bytes=constant_bytes,
        parts=parts,
        sizes=sizes,
    )


def part_of(layer: Layer, before: str) -> str:
    """Return the part of the network that most of a layer's nodes belong to.

    Nodes of the graph itself (``graph.*``) follow what they work on: a layer that has no other
    nodes continues the part ``before``. A layer without nodes is in the rest.
    """
    found = Counter(filter(None, map(_part_of_node, layer.nodes)))
    if found:
        most = max(found.values())
        return max((part for part in found if found[part] == most), key=PARTS.index)
    return before if layer.nodes else REST


def _part_of_node(name: str) -> str:
    return next((part for part, begins in _BEGINNINGS if begins.match(name)), "")


def only_moves(layer: Layer) -> bool:
    """Whether a layer computes nothing: it transposes, copies, slices, joins or casts."""
    if kernel := _KERNEL.match(layer.name):
        words = set(_WORD.findall(kernel[1]))
        return words <= _MOVING_WORDS
    return _MOVES.search(layer.kind) is not None


def bound_ms(moved: int, bandwidth_gb_s: float) -> float:
    """Milliseconds in which a memory of this bandwidth moves so many bytes once."""
    return moved / bandwidth_gb_s / 1e6


def _bytes(operands: Iterable[Operand], open_size: int) -> int:
    return sum(
        _BYTES.get(operand.type, 4)
        * math.prod(open_size if size < 0 else size for size in operand.shape)
        for operand in operands
    )
