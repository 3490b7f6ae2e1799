"""What `quantize --sensitivity` says: the table of blocks, and the command that leaves some out."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pointrend_deploy.errors import UsageError
from pointrend_deploy.quantize.layers import WeightedLayer, weighted_layers
from pointrend_deploy.quantize.patterns import matched
from pointrend_deploy.quantize.placement import INTENDED, Placement
from pointrend_deploy.quantize.sensitivity import Choice, Costs
from pointrend_deploy.verbs.quantize_options import QuantizeOptions

if TYPE_CHECKING:
    from onnx import ModelProto

LITTLE: Final = 1.0
"""Points: where so much is lost without INT8 already, FP32's answers hang on its last digits."""
_INDENT: Final = " " * 12


def table(costs: Costs, fallback: str) -> list[str]:
    """Every block with its share of the FLOPs and what it costs, worst first."""
    total = sum(block.flops for block, _ in costs.alone)
    lines = [
        f"{_INDENT}{costs.none:.3f} lost with all in {fallback.upper()}, {costs.all:.3f} with all "
        "in INT8; with one block alone in INT8:",
        f"{_INDENT}{'points':>8}  {'FLOPs':>6}  {'layers':>6}  block",
    ]
    for block, lost in costs.alone:
        share = f"{block.flops / max(1, total):.1%}"
        lines.append(f"{_INDENT}{lost:8.3f}  {share:>6}  {len(block.layers):6}  {block.name}")
    return lines


def notes(none: float, fallback: str, classes: tuple[int, int] | None) -> list[str]:
    """What makes the figures say less than they seem to."""
    lines = []
    if classes is not None and classes[0] == 1 < classes[1]:
        lines.append(f"note        FP32 shows one of {classes[1]} classes in these pictures")
    if none > LITTLE:
        lines.append(
            f"note        {none:.3f} points are lost with all in {fallback.upper()} already: the "
            "model's answers on these pictures are nearly tied"
        )
    return lines


@dataclass(frozen=True)
class Asked:
    """Layers, and what the options say of them.

    Attributes:
        layers: of all graphs.
        int8: names of those in INT8.
        also: names of those that --also-int8 puts in.
        fp32: names of those that --keep-fp32 leaves out.
    """

    layers: tuple[WeightedLayer, ...]
    int8: frozenset[str]
    also: frozenset[str]
    fp32: frozenset[str]

    @classmethod
    def of(
        cls,
        graphs: Mapping[str, ModelProto],
        options: QuantizeOptions,
        placements: Mapping[str, Placement],
    ) -> Asked:
        """What the options say of the layers of graphs, placed as they ask."""
        layers = tuple(layer for graph in graphs.values() for layer in weighted_layers(graph))
        nodes = [node.name for graph in graphs.values() for node in graph.graph.node]
        names = [layer.name for layer in layers]
        return cls(
            layers,
            frozenset(name for placement in placements.values() for name in placement.int8),
            matched(names, options.also_int8, "--also-int8"),
            matched(nodes, options.keep_fp32, "--keep-fp32").intersection(names),
        )


def proposal(
    bundle: Path,
    options: QuantizeOptions,
    asked: Asked,
    costs: Costs,
    choice: Choice,
    placements: Mapping[str, Placement],
) -> list[str]:
    """What is proposed, as measured, and as a command."""
    limit = f"--max-drop {options.max_drop:g}"
    if not choice.blocks:
        return [f"proposal    leave no block out: {choice.cost:.3f} points lost, {limit}"]
    rest = options.fallback.upper()
    share = _share(placements, asked.layers, choice.layers)
    lines = [
        f"{'applied' if options.apply else 'proposal':<12}{len(choice.blocks)} of "
        f"{len(costs.alone)} blocks in {rest}: {choice.cost:.3f} points lost, {limit}; "
        f"{share:.1%} of the FLOPs meant for INT8 in it"
    ]
    return [*lines, f"{_INDENT}{command(bundle, options, asked, choice)}"]


def command(bundle: Path, options: QuantizeOptions, asked: Asked, choice: Choice) -> str:
    """The command line that makes the graphs with a choice of blocks left out.

    Args:
        bundle: its folder.
        options: that the costs were measured with.
        asked: what they mean.
        choice: blocks to leave out besides.
    """
    keep = "--keep-fp16" if options.fallback == "fp16" else "--keep-fp32"
    kept: dict[str, list[str]] = {
        "--keep-fp32": list(options.keep_fp32),
        "--keep-fp16": list(options.keep_fp16),
    }
    names = [layer.name for layer in asked.layers]
    others = (asked.int8 | asked.also | asked.fp32) - choice.layers
    for block in choice.blocks:
        if layers := block.layers - asked.also:
            kept[keep] += patterns(block.name, layers, names, others | asked.also)
    also = list(options.also_int8)
    if asked.also & choice.layers:
        also = [_exactly(name, names) for name in names if name in asked.also - choice.layers]
    fallback = None if options.fallback == "fp16" else options.fallback
    words = ["pointrend-deploy", "quantize", str(bundle), "--precision", "int8"]
    for option, value in (
        ("--ranges", options.ranges),
        ("--method", options.method),
        ("--percentile", options.percentile),
        ("--fallback", fallback),
    ):
        words += [] if value is None else [option, str(value)]
    for option, values in (*kept.items(), ("--also-int8", also)):
        words += [word for pattern in values for word in (option, pattern)]
    return shlex.join(words)


def patterns(
    block: str, layers: Collection[str], names: Sequence[str], others: Collection[str]
) -> list[str]:
    """Patterns that mean the layers of a block and none of some others.

    Args:
        block: its name.
        layers: names that are to be meant.
        names: of all layers.
        others: those that must not be meant; the rest may.

    Returns:
        The block's name where that will do, or one with a star, or the layers one by one.
    """
    for pattern in (block, f"{block}_*", f"{block}*"):
        meant = _meant(pattern, names)
        if meant.issuperset(layers) and meant.isdisjoint(others):
            return [pattern]
    return [_exactly(name, names) for name in names if name in layers]


def _meant(pattern: str, names: Sequence[str]) -> frozenset[str]:
    try:
        return matched(names, [pattern], "")
    except UsageError:  # none
        return frozenset()


def _exactly(name: str, names: Sequence[str]) -> str:
    """A pattern of one name only, also where that is a module path of further ones."""
    return name if _meant(name, names) == {name} else f"{name[:-1]}[{name[-1]}]"


def _share(
    placements: Mapping[str, Placement], layers: Sequence[WeightedLayer], left: Collection[str]
) -> float:
    """FLOPs in INT8 among those meant for it, once some layers more are left out."""
    meant = sum(placement.meant_flops for placement in placements.values())
    reached = sum(p.flops_share * p.meant_flops for p in placements.values())
    lost = sum(layer.flops for layer in layers if layer.name in left and layer.role in INTENDED)
    return (reached - lost) / meant if meant else 1.0
