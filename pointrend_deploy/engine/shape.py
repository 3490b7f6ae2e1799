"""Count an engine's layers and bytes in its table of layers, by part of the network.

The figures say what a graph costs a GPU before anything is computed: every layer is a launch, and
what it lists as inputs and outputs is read and written. Nothing here is measured.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
"""Memory bandwidth in 10^9 bytes a second, by NVIDIA's data sheets of the Jetson modules."""

SHOWN_DEVICES: Final = ("Jetson AGX Orin", "Jetson Orin Nano 8 GB Super")
"""The devices of reports; the first one where there is room for one alone."""

REST: Final = "rest"
PARTS: Final = ("backbone", "RPN and box head", "semantic head", "mask head", "subdivision", REST)
"""Parts of a network, in the order they run. The backbone has the FPN and the normalisation."""

_BEGINNINGS: Final = (
    ("mask head", re.compile(r"roi_heads\.mask_head\b")),
    (
        "RPN and box head",
        re.compile(r"proposal_generator\b|roi_heads\b|detector\b|p\d+\.(?!to_|(de)?quantize)"),
    ),
    ("subdivision", re.compile(r"sem_seg_head\.point_head\b|step\d+\.|subdivision\b")),
    ("semantic head", re.compile(r"sem_seg_head\b")),
    ("backbone", re.compile(r"backbone\b|normalise\b|image\b")),
)
"""How the names of a part's nodes begin, which are its modules' paths. The first that fits.

``p2.topk`` is of the RPN, but ``p2.to_fp16`` casts an input of the masks' graph, and
``p2.quantize`` works on what the backbone gives."""

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
_LAUNCH_NOTHING: Final = frozenset({"signal", "wait", "shape_call", "NoOp"})
"""Kinds that launch nothing: they order streams or compute shapes on the host."""
_KERNEL: Final = re.compile(r"__myl_((?:[A-Z][a-z]*)+)_")
_WORD: Final = re.compile(r"[A-Z][a-z]*")
_MOVING_WORDS: Final = frozenset(
    {"Tran", "Resh", "Move", "Copy", "Slic", "Conc", "Repl", "Cast", "Pad"}
)


def shape_of(
    layers: Sequence[Layer], plugins: Mapping[str, str], sizes: Mapping[str, int]
) -> EngineShape:
    """Count the layers and bytes of an engine.

    Args:
        layers: of the engine, in the order they run, with no open dimension; see engine.dynamic.
        plugins: op of each node that may be a plugin, by the node's name.
        sizes: value of each dynamic dimension, by its name; they are handed on.
    """
    running = [layer for layer in layers if layer.kind not in _LAUNCH_NOTHING]
    ops: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
    for layer, part in zip(running, parts_of(running), strict=True):
        count = counts[part]
        count["layers"] += 1
        count["bytes"] += _bytes((*layer.inputs, *layer.outputs))
        if _PLUGIN.search(layer.kind):
            count["plugins"] += 1
            ops[next((plugins[node] for node in layer.nodes if node in plugins), "?")] += 1
        elif only_moves(layer):
            count["reformats"] += 1
    parts = {
        part: PartShape(**{key: count[key] for key in PartShape.__struct_fields__})
        for part, count in counts.items()
        if count
    }
    return EngineShape(
        layers=len(running),
        plugins=dict(sorted(ops.items())),
        reformats=sum(part.reformats for part in parts.values()),
        bytes=sum(part.bytes for part in parts.values()),
        constant_bytes=sum(_bytes(layer.constants) for layer in running),
        parts=parts,
        sizes=dict(sizes),
    )


def parts_of(layers: Sequence[Layer]) -> list[str]:
    """Find the part of the network that each layer belongs to.

    It is the part that most of its nodes belong to. Nodes of the graph itself (``graph.sigmoid``)
    belong to none: a layer with no other nodes is of the part that made its inputs. A layer without
    nodes, which the builder added to change a layout, is of the part that reads its outputs first.
    What is left is in the rest.
    """
    parts = [_part_of_nodes(layer.nodes) for layer in layers]
    makers: dict[str, int] = {}
    for index, layer in enumerate(layers):
        if not parts[index] and layer.nodes:
            made = [makers[operand.name] for operand in layer.inputs if operand.name in makers]
            parts[index] = parts[max(made)] if made else ""
        makers |= {operand.name: index for operand in layer.outputs if operand.name}
    readers: dict[str, int] = {}
    for index, layer in reversed(list(enumerate(layers))):
        if not parts[index]:
            reading = [readers[o.name] for o in layer.outputs if o.name in readers]
            parts[index] = parts[min(reading)] if reading else ""
        readers |= {operand.name: index for operand in layer.inputs if operand.name}
    return [part or REST for part in parts]


def _part_of_nodes(names: Iterable[str]) -> str:
    """Part of most of the nodes, of two alike the later one; empty where no node has a part."""
    found = Counter(filter(None, map(_part_of_node, names)))
    return max(found, key=lambda part: (found[part], PARTS.index(part)), default="")


def _part_of_node(name: str) -> str:
    return next((part for part, begins in _BEGINNINGS if begins.match(name)), "")


def only_moves(layer: Layer) -> bool:
    """Whether a layer computes nothing: it transposes, copies, slices, joins or casts."""
    if kernel := _KERNEL.match(layer.name):
        words = set(_WORD.findall(kernel[1]))
        return words <= _MOVING_WORDS
    return _MOVES.search(layer.kind) is not None


def in_short(shape: EngineShape) -> str:
    """Say an engine's layers and bytes in a line for the terminal."""
    open_sizes = "".join(f" with {name} = {size}" for name, size in shape.sizes.items())
    bandwidth = BANDWIDTHS_GB_S[SHOWN_DEVICES[0]]
    return (
        f"layers {shape.layers}, plugins {sum(shape.plugins.values())}, reformats "
        f"{shape.reformats}, {gigabytes(shape.bytes)} a call{open_sizes}: at least "
        f"{bound_ms(shape.bytes, bandwidth):.1f} ms at {bandwidth:.0f} GB/s, counted and not "
        "measured"
    )


def gigabytes(count: int) -> str:
    """Format bytes: 4.90 GB, or 0.031 GB."""
    return f"{count / 1e9:.{2 if count >= 1e9 else 3}f} GB"


def bound_ms(moved: int, bandwidth_gb_s: float) -> float:
    """Milliseconds in which a memory of this bandwidth moves so many bytes once."""
    return moved / bandwidth_gb_s / 1e6


def _bytes(operands: Iterable[Operand]) -> int:
    """Bytes of tensors whose shape is known; one of a type not known counts a byte a value."""
    return sum(_BYTES.get(o.type, 1) * math.prod(o.shape) for o in operands if o.shape)
