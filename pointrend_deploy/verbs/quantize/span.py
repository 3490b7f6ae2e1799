"""What leaves FP16's range in a graph: weights and activations, on the pictures of the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pointrend_deploy.errors import DeployError
from pointrend_deploy.verbs.quantize.reference import Reference
from pointrend_deploy.wording import count_of

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Leaving:
    """A value that FP16 cannot hold, and the nodes that make it or read it in FP16.

    Attributes:
        value: its name in the FP32 graph.
        largest: its largest absolute value.
        beyond: number of its elements of at least 65504.
        count: number of its elements.
        nodes: names of the nodes to keep in FP32, in graph order.
    """

    value: str
    largest: float
    beyond: int
    count: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """How the values of an FP16 or INT8 graph lie in FP16's range.

    Attributes:
        beyond: activations with elements of at least 65504.
        below: activations with elements other than 0 and none of 6.1e-5 or more, where FP16 has
            fewer digits.
        outside: by value that INT8 layers read, the share of elements, 0..1, beyond its range.
        largest: largest absolute activation that is FP16; None if none is.
        at: its name.
        activations: number of elements of FP16 activations.
        zeroed: number of those that are not 0 and become 0 in FP16.
        weights: number of weights that are FP16.
        zeroed_weights: number of those that are not 0 and become 0 in FP16.
    """

    beyond: tuple[Leaving, ...]
    below: tuple[Leaving, ...]
    outside: Mapping[str, float]
    largest: float | None
    at: str
    activations: int
    zeroed: int
    weights: int
    zeroed_weights: int

    def line(self) -> str:
        """Describe the range of the FP16 values for the terminal; empty if nothing is FP16."""
        if self.largest is None:
            return ""
        return (
            f"activations reach {self.largest:.3g} ({self.at}), FP16 ends at 65504; "
            f"{self.zeroed_weights:,} of {count_of(self.weights, 'weight')} and "
            f"{_share(self.zeroed, self.activations)} of the activations become 0 in FP16"
        )


class ActivationRangeError(DeployError):
    """Values of a finished graph leave FP16's range.

    Args:
        message: what is wrong.
        values: the values.
    """

    def __init__(self, message: str, values: Sequence[Leaving]) -> None:
        super().__init__(message)
        self.values = tuple(values)


def beyond_message(precision: str, values: Sequence[Leaving]) -> str:
    """Say which activations of a graph are beyond FP16's range, and where they are read."""
    worst = max(values, key=lambda value: value.largest)
    more = f"; so are {count_of(len(values) - 1, 'more activation')}" if len(values) > 1 else ""
    return (
        f"{worst.beyond:,} of {worst.count:,} elements of {worst.value} are beyond FP16's range in "
        f"the {precision} graph (they reach {worst.largest:.3g}, FP16 ends at 65504){more}"
    )


def below_message(values: Sequence[Leaving]) -> str:
    """Say which activations of a graph are too small for FP16."""
    worst = min(values, key=lambda value: value.largest)
    more = f" and {count_of(len(values) - 1, 'more activation')}" if len(values) > 1 else ""
    return (
        f"no element of {worst.value}{more} reaches 6.1e-5, below which FP16 has fewer digits (the "
        f"largest is {worst.largest:.3g})"
    )


def span_of(reference: Reference, made: Mapping[str, ModelProto]) -> Span:
    """Find what of an FP16 or INT8 graph leaves FP16's range.

    Activations are those of the FP32 graph on the pictures of the check.

    Args:
        reference: what the FP32 graphs compute.
        made: the new graphs, by the file name of the FP32 graph each was made from.
    """
    from pointrend_deploy.quantize.extent import SMALLEST_NORMAL, half_values, zeroed_weights

    beyond, below = [], []
    outside: dict[str, float] = {}
    largest: float | None = None
    at = ""
    counts = [0, 0, 0, 0]
    for file, graph in made.items():
        found = reference.extents.found.get(file, {})
        half = half_values(reference.fp32[file], graph, found)
        for name, extent in found.items():
            if extent.outside:
                outside[name] = extent.outside / extent.count
            if name not in half:
                continue
            value = Leaving(name, extent.largest, extent.beyond, extent.count, half[name].nodes)
            if extent.beyond:
                beyond.append(value)
            if 0 < extent.largest < SMALLEST_NORMAL:
                below.append(value)
            if largest is None or extent.largest > largest:
                largest, at = extent.largest, name
            counts[0] += extent.count
            counts[1] += extent.zeroed
        total, zeroed = zeroed_weights(reference.fp32[file], graph)
        counts[2] += total
        counts[3] += zeroed
    return Span(tuple(beyond), tuple(below), outside, largest, at, *counts)


def _share(part: int, whole: int) -> str:
    return "none" if not part else f"{part / whole:.2%}" if part > whole / 20_000 else "under 0.01%"
