"""What leaves FP16's range in a graph: weights and activations, on the pictures of the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.errors import DeployError
from pointrend_deploy.verbs.quantize.reference import Reference
from pointrend_deploy.wording import count_of

if TYPE_CHECKING:
    from onnx import ModelProto

_OUTSIDE: Final = 0.001
"""Share of the elements of an activation beyond its INT8 range from which a note names it."""


@dataclass(frozen=True)
class Leaving:
    """A value that FP16 cannot hold, and the nodes that make it or read it in FP16.

    Attributes:
        file: name of the FP32 graph's file.
        value: its name in that graph.
        largest: its largest absolute number.
        nodes: names of the nodes to keep in FP32, in graph order.
    """

    file: str
    value: str
    largest: float
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """How the values of an FP16 or INT8 graph lie in FP16's range.

    Attributes:
        beyond: activations that reach 65504.
        below: activations other than 0 that stay below 6.1e-5, where FP16 has fewer digits.
        largest: the largest absolute activation that is FP16; None if none is.
        at: its name.
        weights: number of weights that are FP16.
        zeroed_weights: number of those that are not 0 and become 0 in FP16.
    """

    beyond: tuple[Leaving, ...]
    below: tuple[Leaving, ...]
    largest: float | None
    at: str
    weights: int
    zeroed_weights: int

    def line(self) -> str:
        """Describe the range of the FP16 values for the terminal; empty if nothing is FP16."""
        if self.largest is None:
            return ""
        below = ""
        if self.below:
            below = f"{count_of(len(self.below), 'activation')} stay below 6.1e-5, where it has "
            below += "fewer digits; "
        return (
            f"activations reach {self.largest:.3g} ({self.at}), FP16 ends at 65504; {below}"
            f"{self.zeroed_weights:,} of {self.weights:,} weights become 0"
        )


class ActivationRangeError(DeployError):
    """Activations of a finished graph leave FP16's range.

    Args:
        message: what is wrong.
        values: the activations.
    """

    def __init__(self, message: str, values: Sequence[Leaving]) -> None:
        super().__init__(message)
        self.values = tuple(values)


def span_of(reference: Reference, made: Mapping[str, ModelProto]) -> Span:
    """Find what of an FP16 or INT8 graph leaves FP16's range.

    Activations are those of the FP32 graph on the pictures of the check.

    Args:
        reference: what the FP32 graphs compute.
        made: the new graphs, by the file name of the FP32 graph each was made from.
    """
    from pointrend_deploy.quantize.extent import (
        LARGEST,
        SMALLEST_NORMAL,
        half_values,
        zeroed_weights,
    )

    values = []
    weights = zeroed = 0
    for file, graph in made.items():
        largest = reference.largest.get(file, {})
        for name, half in half_values(reference.fp32[file], graph, largest).items():
            values.append(Leaving(file, name, largest[name], half.nodes))
        counts = zeroed_weights(reference.fp32[file], graph)
        weights, zeroed = weights + counts[0], zeroed + counts[1]
    most = max(values, key=lambda value: value.largest, default=None)
    return Span(
        beyond=tuple(value for value in values if value.largest >= LARGEST),
        below=tuple(value for value in values if 0 < value.largest < SMALLEST_NORMAL),
        largest=most.largest if most else None,
        at=most.value if most else "",
        weights=weights,
        zeroed_weights=zeroed,
    )


def beyond_error(
    reference: Reference, values: Sequence[Leaving], precision: Precision
) -> ActivationRangeError:
    """Count the elements of the largest activation that are beyond FP16's range, and say so.

    Args:
        reference: what the FP32 graphs compute.
        values: the activations that reach 65504.
        precision: of the graph in which they are FP16.
    """
    from pointrend_deploy.quantize.extent import LARGEST

    worst = max(values, key=lambda value: value.largest)
    found = reference.shares({worst.file: {worst.value: LARGEST}})
    beyond, count = found[worst.file][worst.value]
    more = f"; so are {count_of(len(values) - 1, 'more activation')}" if len(values) > 1 else ""
    return ActivationRangeError(
        f"{beyond:,} of {count:,} elements of {worst.value} are beyond FP16's range in the "
        f"{precision} graph (they reach {worst.largest:.3g}, FP16 ends at 65504){more}",
        values,
    )


def below_message(values: Sequence[Leaving]) -> str:
    """Say which activations of a graph are too small for FP16."""
    worst = min(values, key=lambda value: value.largest)
    more = f" and {count_of(len(values) - 1, 'more activation')}" if len(values) > 1 else ""
    return (
        f"no element of {worst.value}{more} reaches 6.1e-5, below which FP16 has fewer digits (the "
        f"largest is {worst.largest:.3g})"
    )


def outside_note(reference: Reference, made: Mapping[str, ModelProto]) -> str:
    """Count what is beyond the ranges of an INT8 graph; name the activation with the most.

    Returns:
        The end of a sentence, or an empty text if no activation has more than 0.1 % beyond it.
    """
    from pointrend_deploy.quantize.extent import int8_limits

    found = reference.shares({file: int8_limits(graph) for file, graph in made.items()})
    shares = {
        name: reaching / count
        for values in found.values()
        for name, (reaching, count) in values.items()
    }
    name = max(shares, key=lambda name: shares[name], default="")
    if not name or shares[name] < _OUTSIDE:
        return ""
    return (
        f", and {shares[name]:.1%} of {name} is beyond the range it was calibrated to: calibrate "
        "on pictures like those the model was trained on, or try another --method"
    )
