"""`quantize --sensitivity`: measure what each block costs in INT8 and propose which to leave out.

:func:`proposed` measures; the functions after it say the result: a table of blocks, notes, and the
`quantize` command that leaves some blocks out.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.progress import Progress
from pointrend_deploy.quantize.layers import WeightedLayer, matched, weighted_layers
from pointrend_deploy.quantize.placement import INTENDED, Placement
from pointrend_deploy.quantize.sensitivity import (
    Choice,
    Cost,
    Costs,
    Measure,
    blocks_of,
    chosen,
    measured,
    most_calls,
)
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.scale import Scale, pictures_for

if TYPE_CHECKING:
    from onnx import ModelProto


Graphs = Mapping[str, "ModelProto"]
"""Graphs by the file name of the FP32 graph each was made from."""

LITTLE: Final = 1.0
"""Points; if more are lost without INT8 already, the costs of blocks say less."""
_INDENT: Final = " " * 12


class Maker(Protocol):
    """Makes the INT8 graphs of a bundle for any choice of layers."""

    @property
    def bundle(self) -> Bundle:
        """The bundle the graphs are for."""

    @property
    def options(self) -> QuantizeOptions:
        """Options of `quantize`."""

    @property
    def fp32(self) -> Graphs:
        """The FP32 graphs."""

    @property
    def placements(self) -> Mapping[str, Placement]:
        """Placement of each graph as the options have it, by file name."""

    def __call__(self, leave_out: frozenset[str], /) -> Graphs:
        """Make the graphs with some more layers left out of INT8."""


@dataclass(frozen=True)
class Sensitivity:
    """What was measured, and what follows from it.

    Attributes:
        lines: lines for the terminal.
        leave_out: names of the layers proposed to be left out of INT8; empty without a limit.
    """

    lines: tuple[str, ...]
    leave_out: frozenset[str]


def proposed(make: Maker, progress: Progress) -> Sensitivity:
    """Measure what each block costs in INT8 and, given a limit, choose the blocks to leave out.

    Graphs are made, run in ONNX Runtime and released one after the other. Nothing is written.

    Args:
        make: makes the graphs; ``images`` and ``max_drop`` of its options are used here.
        progress: receives each picture of each graph.

    Raises:
        UsageError: no pictures are given, or the limit is not above 0.
        DeployError: no layer is in INT8, no picture can be read, FP32 finds nothing in them, or
            the limit cannot be met.
    """
    options = make.options
    if options.images is None:
        raise UsageError(
            "--sensitivity needs pictures to measure on", "give --images: a folder or a list"
        )
    limit = options.max_drop
    if limit is not None and not limit > 0:
        raise UsageError(f"--max-drop {limit:g} is not a number of points above 0")
    named = Named.of(make)
    blocks = blocks_of(named.layers, named.int8)
    if not blocks:
        raise DeployError(
            "no layer is in INT8, so there is nothing to measure",
            "leave --sensitivity out, or leave fewer layers out",
        )
    pictures = pictures_for(make.bundle, options, options.images)
    with progress.step("FP32's answers", len(pictures.paths)) as done:
        scale = Scale(make.bundle, pictures.paths, make.fp32, done)

    def counted(done: Callable[[], None]) -> Cost:
        return lambda keep: scale.points(make(keep), done)

    with progress.step("each block in INT8", (len(blocks) + 2) * len(scale.paths)) as done:
        cost = counted(done)
        none = cost(named.int8)
        if limit is not None and none > limit:
            raise DeployError(
                f"{none:.3f} points are lost with every layer in {options.fallback.upper()} "
                f"already, more than --max-drop {limit:g}",
                "raise --max-drop, or deploy FP32",
            )
        costs = measured(blocks, cost, none, cost(frozenset()))
    lines = [
        *pictures.lines(scale.skipped, scale.measure),
        *notes(none, options.fallback, scale.measure),
        *table(costs, options.fallback),
    ]
    if limit is None:
        return Sensitivity(tuple(lines), frozenset())
    with progress.step(
        "choosing blocks, at most", most_calls(len(blocks)) * len(scale.paths)
    ) as done:
        choice = chosen(costs, counted(done), limit)
    assert choice is not None  # it is None only if FP16 loses too much, which was refused above
    lines += proposal(make, named, costs, choice)
    return Sensitivity(tuple(lines), choice.layers)


def table(costs: Costs, fallback: str) -> list[str]:
    """List every block with its cost in points and its share of the FLOPs, most costly first."""
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


def notes(none: float, fallback: str, measure: Measure) -> list[str]:
    """Warn if the figures say less than they seem to.

    Args:
        none: points lost with no layer in INT8.
        fallback: precision of layers that are not in INT8.
        measure: definition of the points, with a note on the pictures.
    """
    lines = [f"note        {measure.note}"] if measure.note else []
    if none > LITTLE:
        lines.append(
            f"note        {none:.3f} points are lost with all in {fallback.upper()} already, so a "
            "block that is listed with less does not show what INT8 costs in it"
        )
    return lines


@dataclass(frozen=True)
class Named:
    """The layers of all graphs, and those that the options name.

    Attributes:
        layers: layers of all graphs.
        int8: names of those in INT8.
        also: names of those that --also-int8 puts in INT8.
        fp32: names of those that --keep-fp32 keeps in FP32.
    """

    layers: tuple[WeightedLayer, ...]
    int8: frozenset[str]
    also: frozenset[str]
    fp32: frozenset[str]

    @classmethod
    def of(cls, make: Maker) -> Named:
        """Find the layers that the options of a maker name."""
        graphs, options = make.fp32.values(), make.options
        layers = tuple(layer for graph in graphs for layer in weighted_layers(graph))
        nodes = [node.name for graph in graphs for node in graph.graph.node]
        names = [layer.name for layer in layers]
        return cls(
            layers,
            frozenset(name for placement in make.placements.values() for name in placement.int8),
            matched(names, options.also_int8, "--also-int8"),
            matched(nodes, options.keep_fp32, "--keep-fp32").intersection(names),
        )


def proposal(make: Maker, named: Named, costs: Costs, choice: Choice) -> list[str]:
    """Say what is proposed, what it costs as measured, and the command that makes it."""
    options = make.options
    limit = f"--max-drop {options.max_drop:g}"
    if not choice.blocks:
        return [f"proposal    leave no block out: {choice.cost:.3f} points lost, {limit}"]
    rest = options.fallback.upper()
    share = _share(make.placements, named.layers, choice.layers)
    return [
        f"{'applied' if options.apply else 'proposal':<12}{len(choice.blocks)} of "
        f"{len(costs.alone)} blocks in {rest}: {choice.cost:.3f} points lost, {limit}; "
        f"{share:.1%} of the FLOPs meant for INT8 in it",
        f"{_INDENT}{command(make.bundle.path, options, named, choice)}",
    ]


def command(bundle: Path, options: QuantizeOptions, named: Named, choice: Choice) -> str:
    """Return the command line that makes the graphs with some more blocks left out.

    Args:
        bundle: folder of the bundle.
        options: options that the costs were measured with.
        named: layers that the options name.
        choice: blocks to leave out beside those.
    """
    keep = "--keep-fp16" if options.fallback == "fp16" else "--keep-fp32"
    kept: dict[str, list[str]] = {
        "--keep-fp32": list(options.keep_fp32),
        "--keep-fp16": list(options.keep_fp16),
    }
    names = [layer.name for layer in named.layers]
    others = (named.int8 | named.also | named.fp32) - choice.layers
    for block in choice.blocks:
        if layers := block.layers - named.also:
            kept[keep] += patterns(block.name, layers, names, others | named.also)
    also = list(options.also_int8)
    if named.also & choice.layers:
        also = [_exactly(name, names) for name in names if name in named.also - choice.layers]
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
    """Find patterns that match some layers of a block and none of some others.

    Args:
        block: name of the block.
        layers: names of the layers to match.
        names: names of all layers.
        others: names that must not be matched; the rest may be.

    Returns:
        The name of the block if that will do, else a pattern with a star, else each layer by name.
    """
    for pattern in (block, f"{block}_*", f"{block}*"):
        found = _matched(pattern, names)
        if found.issuperset(layers) and found.isdisjoint(others):
            return [pattern]
    return [_exactly(name, names) for name in names if name in layers]


def _matched(pattern: str, names: Sequence[str]) -> frozenset[str]:
    try:
        return matched(names, [pattern], "")
    except UsageError:  # it matches none
        return frozenset()


def _exactly(name: str, names: Sequence[str]) -> str:
    """Return a pattern that matches one name only, even if it is a module path of others."""
    return name if _matched(name, names) == {name} else f"{name[:-1]}[{name[-1]}]"


def _share(
    placements: Mapping[str, Placement], layers: Sequence[WeightedLayer], left: Collection[str]
) -> float:
    """Return the share of FLOPs meant for INT8 that remains in INT8 without some more layers."""
    meant = sum(placement.meant_flops for placement in placements.values())
    reached = sum(p.flops_share * p.meant_flops for p in placements.values())
    lost = sum(layer.flops for layer in layers if layer.name in left and layer.role in INTENDED)
    return (reached - lost) / meant if meant else 1.0
