"""Make the INT8 graphs of a bundle from its FP32 graphs, the options and the ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.progress import Progress
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.islands import node_types
from pointrend_deploy.quantize.layers import matched, weighted_layers
from pointrend_deploy.quantize.placement import CANNOT, Placement, place
from pointrend_deploy.quantize.qdq import insert
from pointrend_deploy.verbs.quantize.graphs import QuantizedGraphs
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.ranges import UsedRanges, ranges_for

if TYPE_CHECKING:
    from onnx import ModelProto

_WIDE_OPS: Final = frozenset(["Gemm", "MatMul"])
"""Ops whose scales stay FP32 in INT8: with FP16 scales TensorRT-RTX 1.7 stores the unscaled integer
sums as FP16, and sums over a few hundred inputs exceed 65504."""


def int8_graphs(
    bundle: Bundle,
    options: QuantizeOptions,
    fp32: Mapping[str, ModelProto],
    progress: Progress,
) -> QuantizedGraphs:
    """Make the INT8 graphs of a bundle.

    Args:
        bundle: the bundle they are for.
        options: options of `quantize`.
        fp32: the FP32 graphs by file name.
        progress: receives each step.

    Raises:
        UsageError: options or patterns contradict each other or match no layer.
        DeployError: there are no ranges, the ranges are of other graphs, or a value has none.
    """
    choice = _choice(options, fp32)
    placements = choice.placements(fp32)
    _check_also(choice.also, placements)
    maker = _Maker(bundle, options, fp32, choice, ranges_for(bundle, options, placements))
    lines: tuple[str, ...] = ()
    leave_out: frozenset[str] = frozenset()
    if options.sensitivity:
        from pointrend_deploy.verbs.quantize.sensitivity import proposed

        found = proposed(maker, progress)
        lines = found.lines
        if options.apply:
            leave_out = found.leave_out
            maker = replace(maker, choice=choice.without(leave_out))
    _check_any(maker.placements)
    with progress.step("making the INT8 graph"):
        graphs = maker()
    record = maker.record()
    more = (*_lines(record, maker.ranges), *lines)
    return QuantizedGraphs(graphs, record, maker.ranges.notes, more, leave_out)


@dataclass(frozen=True)
class _Choice:
    """The layers that the options name.

    Attributes:
        keep: names of layers to leave out of INT8.
        also: names of layers to put in INT8 that are not by default.
        fp32: names of nodes of any kind to keep in FP32.
    """

    keep: frozenset[str]
    also: frozenset[str]
    fp32: frozenset[str]

    def without(self, layers: Collection[str]) -> _Choice:
        """Return the choice with more layers left out of INT8."""
        return replace(self, keep=self.keep.union(layers))

    def placements(self, fp32: Mapping[str, ModelProto]) -> dict[str, Placement]:
        """Place every graph, by file name."""
        return {file: place(graph, self.keep, self.also) for file, graph in fp32.items()}


@dataclass(frozen=True)
class _Maker:
    """Makes the INT8 graphs of a bundle, with more layers left out on request.

    Attributes:
        bundle: the bundle they are for.
        options: options of `quantize`.
        fp32: the FP32 graphs by file name.
        choice: layers that the options name.
        ranges: ranges of the values.
    """

    bundle: Bundle
    options: QuantizeOptions
    fp32: Mapping[str, ModelProto]
    choice: _Choice
    ranges: UsedRanges

    @cached_property
    def placements(self) -> dict[str, Placement]:
        """Placement of each graph with nothing more left out."""
        return self.choice.placements(self.fp32)

    def __call__(self, leave_out: Collection[str] = ()) -> dict[str, ModelProto]:
        """Make the graphs, with some more layers left out of INT8."""
        placements = self.choice.without(leave_out).placements(self.fp32)
        return {file: self._graph(file, placement) for file, placement in placements.items()}

    def _graph(self, file: str, placement: Placement) -> ModelProto:
        fp32, amax = self.fp32[file], self.ranges.amax[file]
        if self.options.fallback == "fp32":
            return insert(fp32, placement, amax)
        int8 = frozenset(placement.int8)
        nodes = fp32.graph.node
        products = {n.name for n in nodes if n.op_type in _WIDE_OPS and n.name in int8}
        half = to_half(fp32, products.union(self.choice.fp32 & {node.name for node in nodes}))
        return insert(half.model, placement, amax, weights_from=fp32)

    def record(self) -> QuantizedRecord:
        """Return the entry of these graphs in the manifest."""
        placements = self.placements.values()
        left_out = {k: v for placement in placements for k, v in placement.left_out.items()}
        meant = sum(placement.meant_flops for placement in placements)
        reached = sum(placement.flops_share * placement.meant_flops for placement in placements)
        return QuantizedRecord(
            fallback=self.options.fallback,
            fp32=tuple(name for name in left_out if name in self.choice.fp32),
            int8=tuple(name for placement in placements for name in placement.int8),
            left_out=left_out,
            int8_flops=reached / meant if meant else 1.0,
            method=self.ranges.method,
            ranges_sha256=self.ranges.sha256,
            pictures=self.ranges.pictures,
            sources={file: self.bundle.manifest.files[file] for file in self.fp32},
        )


def _choice(options: QuantizeOptions, fp32: Mapping[str, ModelProto]) -> _Choice:
    """Find the layers that the patterns match; refuse patterns that contradict each other."""
    if options.fallback == "fp32" and options.keep_fp16:
        raise UsageError(
            "--keep-fp16 asks for FP16 and --fallback fp32 for none",
            "with --fallback fp32, leave layers out of INT8 with --keep-fp32",
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
                f"{both[0]} is matched by {one} and by {other}"
                + (f", and so are {len(both) - 1} more" if len(both) > 1 else ""),
                "narrow one of the patterns",
            )
    return _Choice(keep_fp16 | (keep_fp32 & frozenset(layers)), also, keep_fp32)


def _check_also(also: Collection[str], placements: Mapping[str, Placement]) -> None:
    """Raise UsageError if no layer matched by --also-int8 can be INT8."""
    reasons = {k: v for placement in placements.values() for k, v in placement.left_out.items()}
    if also and all(reasons.get(name, "").startswith(CANNOT) for name in also):
        name = min(also)
        raise UsageError(
            f"--also-int8: {name} cannot be INT8: {reasons[name].removeprefix(CANNOT)}",
            "leave --also-int8 out",
        )


def _check_any(placements: Mapping[str, Placement]) -> None:
    """Raise UsageError if no graph has a layer in INT8."""
    if not any(placement.int8 for placement in placements.values()):
        raise UsageError(
            f"no layer of {', '.join(placements)} is left in INT8",
            "leave fewer layers out, or make the FP16 graph: --precision fp16",
        )


def _lines(record: QuantizedRecord, ranges: UsedRanges) -> tuple[str, ...]:
    """Say for the terminal which layers are in INT8, why others are not, and with which ranges."""
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
