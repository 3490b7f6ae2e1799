"""The INT8 graphs of a bundle: which layers, with which ranges, and what becomes of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.progress import Progress
from pointrend_deploy.quantize.fp16 import HalfGraph, to_half
from pointrend_deploy.quantize.islands import node_types
from pointrend_deploy.quantize.layers import matched, weighted_layers
from pointrend_deploy.quantize.placement import CANNOT, Placement, place
from pointrend_deploy.quantize.qdq import insert
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.ranges import UsedRanges, ranges_for

if TYPE_CHECKING:
    from onnx import ModelProto

_WIDE_OPS: Final = frozenset(["Gemm", "MatMul"])
"""INT8 products whose scales stay FP32: with FP16 ones TensorRT-RTX 1.7 writes the bare integer
sums as FP16 before it scales them, and those of a few hundred inputs are past 65504."""


@dataclass(frozen=True)
class Int8Graphs:
    """INT8 graphs and what is to be said of them.

    Attributes:
        graphs: by the file of the FP32 graph each was made from.
        record: for the manifest.
        notes: what the user should know.
        more: lines for the terminal.
    """

    graphs: dict[str, ModelProto]
    record: QuantizedRecord
    notes: tuple[str, ...]
    more: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    """What the patterns mean: names of layers left out, put in, and kept in FP32 (of any nodes)."""

    keep: frozenset[str]
    also: frozenset[str]
    fp32: frozenset[str]


def int8_graphs(
    bundle: Bundle,
    options: QuantizeOptions,
    fp32: Mapping[str, ModelProto],
    progress: Progress,
) -> Int8Graphs:
    """Make the INT8 graphs.

    Args:
        bundle: they are for.
        options: see there.
        fp32: the FP32 graphs by file name.
        progress: told of each step.

    Raises:
        UsageError: options or patterns that contradict each other or mean no layer.
        DeployError: no ranges, ranges of other graphs, or none for a value that needs one.
    """
    choice = _choice(options, fp32)
    placements = {file: place(graph, choice.keep, choice.also) for file, graph in fp32.items()}
    _check_also(choice.also, placements)
    ranges = ranges_for(bundle, options, placements)

    def make(keep: Collection[str]) -> dict[str, ModelProto]:
        left = choice.keep | frozenset(keep)
        return {
            file: _mixed(graph, place(graph, left, choice.also), ranges.amax[file], choice, options)
            for file, graph in fp32.items()
        }

    lines: tuple[str, ...] = ()
    if options.sensitivity:
        from pointrend_deploy.verbs.quantize.sensitivity import proposed

        found = proposed(bundle, options, fp32, make, placements, progress)
        lines = tuple(found.lines)
        if options.apply:
            choice = replace(choice, keep=choice.keep | found.leave_out)
            placements = {
                file: place(graph, choice.keep, choice.also) for file, graph in fp32.items()
            }
    _check_any(placements)
    with progress.step("making the INT8 graph"):
        graphs = make(choice.keep)
    record = _record(bundle, options, fp32, choice, placements, ranges)
    return Int8Graphs(graphs, record, ranges.notes, (*_lines(record, ranges), *lines))


def _choice(options: QuantizeOptions, fp32: Mapping[str, ModelProto]) -> _Choice:
    if options.fallback == "fp32" and options.keep_fp16:
        raise UsageError(
            "--keep-fp16 asks for FP16 and --fallback fp32 for none",
            "with --fallback fp32 layers are left out of INT8 with --keep-fp32",
        )
    layers = [layer.name for graph in fp32.values() for layer in weighted_layers(graph)]
    nodes = [name for graph in fp32.values() for name in node_types(graph)]
    keep_fp16 = matched(layers, options.keep_fp16, "--keep-fp16")
    keep_fp32 = matched(nodes, options.keep_fp32, "--keep-fp32")
    also = matched(layers, options.also_int8, "--also-int8")
    for one, first, other, second in (
        ("--keep-fp16", keep_fp16, "--also-int8", also),
        ("--keep-fp32", keep_fp32, "--also-int8", also),
        ("--keep-fp16", keep_fp16, "--keep-fp32", keep_fp32),
    ):
        if both := [name for name in layers if name in first & second]:
            raise UsageError(
                f"{both[0]} is meant by {one} and by {other}"
                + (f", and {len(both) - 1} more are" if len(both) > 1 else ""),
                "narrow one of the patterns",
            )
    return _Choice(keep_fp16 | (keep_fp32 & frozenset(layers)), also, keep_fp32)


def _check_also(also: Collection[str], placements: Mapping[str, Placement]) -> None:
    """Refuse patterns of --also-int8 all of whose layers cannot be INT8."""
    reasons = {k: v for placement in placements.values() for k, v in placement.left_out.items()}
    if also and all(reasons.get(name, "").startswith(CANNOT) for name in also):
        name = min(also)
        raise UsageError(
            f"--also-int8: {name} cannot be INT8: {reasons[name].removeprefix(CANNOT)}",
            "leave --also-int8 out",
        )


def _check_any(placements: Mapping[str, Placement]) -> None:
    """Refuse graphs that have no layer in INT8 between them."""
    if not any(placement.int8 for placement in placements.values()):
        raise UsageError(
            f"no layer of {', '.join(placements)} is left in INT8",
            "leave fewer layers out, or make the FP16 graph: --precision fp16",
        )


def _mixed(
    graph: ModelProto,
    placement: Placement,
    amax: Mapping[str, float],
    choice: _Choice,
    options: QuantizeOptions,
) -> ModelProto:
    """INT8 where the placement says so, and what was chosen elsewhere."""
    if options.fallback == "fp32":
        return insert(graph, placement, amax)
    return insert(_half(graph, placement, choice).model, placement, amax, weights_from=graph)


def _half(graph: ModelProto, placement: Placement, choice: _Choice) -> HalfGraph:
    int8 = frozenset(placement.int8)
    products = {n.name for n in graph.graph.node if n.op_type in _WIDE_OPS and n.name in int8}
    names = {node.name for node in graph.graph.node}
    return to_half(graph, (choice.fp32 & names) | products)


def _record(
    bundle: Bundle,
    options: QuantizeOptions,
    fp32: Mapping[str, ModelProto],
    choice: _Choice,
    placements: Mapping[str, Placement],
    ranges: UsedRanges,
) -> QuantizedRecord:
    kept = [name for p in placements.values() for name in p.left_out if name in choice.fp32]
    meant = {file: placement.meant_flops for file, placement in placements.items()}
    reached = sum(p.flops_share * meant[file] for file, p in placements.items())
    return QuantizedRecord(
        fallback=options.fallback,
        fp32=tuple(kept),
        int8=tuple(name for placement in placements.values() for name in placement.int8),
        left_out={k: v for placement in placements.values() for k, v in placement.left_out.items()},
        int8_flops=reached / sum(meant.values()) if sum(meant.values()) else 1.0,
        method=ranges.method,
        ranges_sha256=ranges.sha256,
        pictures=ranges.pictures,
        sources={file: bundle.manifest.files[file] for file in fp32},
    )


def _lines(record: QuantizedRecord, ranges: UsedRanges) -> tuple[str, ...]:
    others = {k: v for k, v in record.left_out.items() if k not in record.fp32}
    reasons = Counter(others.values())
    rest = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    of = f"{len(others)} layers" + (f": {rest}" if rest else "")
    if record.int8_flops is None:
        raise DeployError("an INT8 graph without a share of FLOPs")
    pictures = "" if ranges.pictures is None else f", {ranges.pictures} pictures"
    return (
        f"INT8        {len(record.int8)} layers, {record.int8_flops:.1%} of the FLOPs meant for it",
        f"{record.fallback.upper()}        {of}",
        f"ranges      {ranges.described}{pictures}",
    )
