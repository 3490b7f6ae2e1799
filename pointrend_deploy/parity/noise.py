"""Where in the network the error of a precision enters: the noise of each stage, points by step.

Stages of two graphs on the same input are summed over pictures in float64, so that no picture's
activations are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.record.precisions import StageNoise, StepOverlap
from pointrend_deploy.parity.subdivision.points import common_logits
from pointrend_deploy.parity.tensors import PIECE, snr_db

Array = npt.NDArray[Any]

STAGE_PICTURES: Final = 16
"""Number of pictures whose stages are compared; each costs a second call of every graph."""
ENTRY_DB: Final = 30.0
"""The error enters at the first stage below this SNR in dB: noise of 3 % of the signal."""
NOT_FINITE: Final = "values that are NaN or infinite"


@dataclass
class _Sums:
    count: int = 0
    signal: float = 0.0
    noise: float = 0.0
    near_zero: bool = False
    problem: str = ""


@dataclass
class _Sets:
    k: int
    sets: int = 0
    both: int = 0
    either: int = 0
    least: float = 1.0


@dataclass
class StageSums:
    """Sums over pictures of one precision's stages beside the FP32 graph's."""

    _sums: dict[str, _Sums] = field(default_factory=dict)
    _steps: dict[int, _Sets] = field(default_factory=dict)

    def add(self, fp32: Mapping[str, Array], found: Mapping[str, Array]) -> None:
        """Count one batch.

        Args:
            fp32: the FP32 graph's stages by name, in network order. ``step<t>.indices`` (N, K) are
                sets of points. ``step<t>.point_logits`` (N, C, K) are compared at the points that
                both graphs chose; where the step has no indices, at all points. N is the number of
                pictures or of detections.
            found: the precision's stages with the same names and shapes, in any float type.
        """
        for name, expected in fp32.items():
            ours = found.get(name)
            if name.endswith(".indices"):
                if ours is not None:
                    self._points(int(name[4:].split(".")[0]), expected, ours)
                continue
            sums = self._sums.setdefault(name, _Sums())
            if not expected.size:  # a picture without detections
                continue
            if ours is None:
                sums.problem = "this graph has no such value"
            elif ours.shape != expected.shape:
                sums.problem = f"shape {ours.shape} where {expected.shape} is expected"
            else:
                at = name.replace(".point_logits", ".indices")
                if at != name and at in fp32 and at in found:
                    sums.near_zero = expected.shape[1] == 1
                    expected, ours = common_logits(fp32[at], expected, found[at], ours)
                _square(sums, expected, ours)

    def stages(self) -> tuple[StageNoise, ...]:
        """Return a row for each stage, in the order they were first seen in."""
        return tuple(_row(name, sums) for name, sums in self._sums.items())

    def points(self) -> tuple[StepOverlap, ...]:
        """Return a row for each subdivision step that chooses points."""
        return tuple(
            StepOverlap(
                step=step,
                k=each.k,
                sets=each.sets,
                share=each.both / (each.sets * each.k),
                least=each.least,
                jaccard=each.both / each.either,
            )
            for step, each in sorted(self._steps.items())
            if each.sets * each.k
        )

    def _points(self, step: int, expected: Array, ours: Array) -> None:
        k = expected.shape[-1]
        total = self._steps.setdefault(step, _Sets(k))
        for left, right in zip(expected.reshape(-1, k), ours.reshape(-1, k), strict=True):
            both = int(np.intersect1d(left, right).size)
            total.sets += 1
            total.both += both
            total.either += 2 * k - both
            total.least = min(total.least, both / k)


def entry(stages: Iterable[StageNoise]) -> StageNoise | None:
    """Return the first stage whose SNR is below ``ENTRY_DB`` or whose values are not finite.

    Logits that are near zero by choice are not looked at; the final logits contain them too.
    """
    return next(
        (
            each
            for each in stages
            if each.problem == NOT_FINITE
            or (each.snr_db is not None and each.snr_db < ENTRY_DB and not each.near_zero)
        ),
        None,
    )


def _square(sums: _Sums, expected: Array, ours: Array) -> None:
    left, right = expected.reshape(-1), ours.reshape(-1)
    for start in range(0, left.size, PIECE):
        a = left[start : start + PIECE].astype(np.float64)
        b = right[start : start + PIECE].astype(np.float64)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            sums.problem = NOT_FINITE
            return
        sums.signal += float(np.square(a).sum())
        sums.noise += float(np.square(b - a).sum())
    sums.count += left.size


def _row(name: str, sums: _Sums) -> StageNoise:
    if sums.problem or not sums.count:
        return StageNoise(stage=name, problem=sums.problem or "nothing to compare")
    rms, noise = math.sqrt(sums.signal / sums.count), math.sqrt(sums.noise / sums.count)
    return StageNoise(
        stage=name,
        rms=rms,
        noise=noise,
        snr_db=snr_db(rms, noise),
        near_zero=sums.near_zero,
    )
