"""How long the pictures of a run took: medians by step, without the warm-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

import msgspec

from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.wording import count_of

NOT_COUNTED: Final = ("read", "write")
"""Steps of a run over files that a program with its own pictures does not have."""
_WORDS: Final[Mapping[str, str]] = {"prepare": "fit", "infer": "graph"}


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Median times of a run; reading and writing files are not counted.

    Attributes:
        pictures: how many the medians are over.
        warm_up: pictures of the first batch, which are left out because the first call of a graph
            also sets it up; 0 where there was no other batch, and the first is all there is.
        ms: median over the pictures of the sum of their steps, in milliseconds.
        steps: median of each step in milliseconds, in the order they were taken.
    """

    pictures: int
    warm_up: int
    ms: float
    steps: dict[str, float]

    def line(self, runner: str, precision: Precision) -> str:
        """Say the latency in a line, with the runner and the precision that it is of."""
        parts = ", ".join(
            f"{ms:.1f} ms {_WORDS.get(step, step)}" for step, ms in self.steps.items()
        )
        simulated = (
            " simulated, not at an engine's speed" if _is_simulated(runner, precision) else ""
        )
        measured = f"{runner} runner, {precision.upper()}{simulated}: {parts}"
        if not self.warm_up:
            return (
                f"{self.ms:.1f} ms a picture in the only call of the model, warm-up included, "
                f"{measured}; files not counted"
            )
        pictures = count_of(self.pictures, "picture")
        first = "picture" if self.warm_up == 1 else f"{self.warm_up} pictures"
        return (
            f"median {self.ms:.1f} ms a picture over {pictures}, {measured}; "
            f"not counted: the first {first} (warm-up), reading and writing files"
        )


def _is_simulated(runner: str, precision: Precision) -> bool:
    """Whether ONNX Runtime computes a lower precision with its rounding, in FP32's time or more."""
    return runner == "onnx" and precision != "fp32"


def latency_of(times: Sequence[Mapping[str, float]], first_batch: int) -> Latency | None:
    """Compute the medians of a run.

    Args:
        times: milliseconds of each picture by step, in the order they were run.
        first_batch: how many pictures the first batch had.

    Returns:
        The medians; None where no picture was run.
    """
    warm_up = first_batch if first_batch < len(times) else 0
    counted = [
        {step: ms for step, ms in each.items() if step not in NOT_COUNTED}
        for each in times[warm_up:]
    ]
    if not counted:
        return None
    return Latency(
        pictures=len(counted),
        warm_up=warm_up,
        ms=round(median(sum(each.values()) for each in counted), 3),
        steps={step: round(median(each[step] for each in counted), 3) for step in counted[0]},
    )
