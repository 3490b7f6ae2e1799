"""`quantize --sensitivity`: what each block costs in INT8, and which to leave out.

MERGED: What `quantize --sensitivity` says: the table of blocks, and the command that leaves some out.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.progress import Progress
from pointrend_deploy.quantize.layers import WeightedLayer, matched, weighted_layers
from pointrend_deploy.quantize.placement import INTENDED, Placement
from pointrend_deploy.quantize.sensitivity import (
    Choice,
    Cost,
    Costs,
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
"""By the file of the FP32 graph each was made from."""


@dataclass(frozen=True)
class Sensitivity:
    """What was measured and what follows.

    Attributes:
        lines: for the terminal.
        leave_out: names of the layers proposed to be left out of INT8; empty without a limit.
    """

    lines: tuple[str, ...]
    leave_out: frozenset[str]


def proposed(
    bundle: Bundle,
    options: QuantizeOptions,
    fp32_graphs: Graphs,
    make: Callable[[frozenset[str]], Graphs],
    placements: Mapping[str, Placement],
    progress: Progress,
) -> Sensitivity:
    """Measure what each block costs in INT8 and, with a limit, choose the blocks to leave out.

    Graphs are made, run in ONNX Runtime and let go of one after the other; of the pictures only
    FP32's answers are kept. Nothing is written.

    Args:
        bundle: opened.
        options: ``images``, ``max_drop`` and what the graphs are made with.
        fp32_graphs: to measure against.
        make: gives the graphs with these layers left out of INT8, beside those the options leave
            out.
        placements: of the graphs that ``make`` gives for no layers.
        progress: told of each picture of each graph.

    Raises:
        UsageError: no pictures named, or a limit that is not above 0.
        DeployError: no layer is in INT8, no picture can be read, FP32 finds nothing in them, or
            the limit cannot be met.
    """
    if options.images is None:
        raise UsageError(
            "--sensitivity needs pictures to measure on", "give --images: a folder or a list"
        )
    limit = options.max_drop
    if limit is not None and not limit > 0:
        raise UsageError(f"--max-drop {limit:g} is not a number of points above 0")
    asked = Asked.of(fp32_graphs, options, placements)
    blocks = blocks_of(asked.layers, asked.int8)
    if not blocks:
        raise DeployError(
            "no layer is in INT8, so there is nothing to measure",
            "leave --sensitivity out, or leave fewer layers out",
        )
    pictures = pictures_for(bundle, options, options.images)
    with progress.step("FP32's answers", len(pictures.paths)) as done:
        scale = Scale(bundle, pictures.paths, fp32_graphs, done)

    def telling(done: Callable[[], None]) -> Cost:
        return lambda keep: scale.points(make(keep), done)

    with progress.step("each block in INT8", (len(blocks) + 2) * len(scale.paths)) as done:
        cost = telling(done)
        none = cost(asked.int8)
        if limit is not None and none > limit:
            raise DeployError(
                f"{none:.3f} points are lost with every layer in {options.fallback.upper()} "
                f"already, more than --max-drop {limit:g}",
                "allow more, or deploy FP32",
            )
        costs = measured(blocks, cost, none, cost(frozenset()))
    lines = [
        *pictures.lines(scale.skipped, scale.measure),
        *notes(none, options.fallback, scale.classes),
        *table(costs, options.fallback),
    ]
    if limit is None:
        return Sensitivity(tuple(lines), frozenset())
    with progress.step(
        "choosing blocks, at most", most_calls(len(blocks)) * len(scale.paths)
    ) as done:
        choice = chosen(costs, telling(done), limit)
    assert choice is not None  # it is None only where FP16 loses too much, as was seen above
    lines += proposal(bundle.path, options, asked, costs, choice, placements)
    return Sensitivity(tuple(lines), choice.layers)


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
