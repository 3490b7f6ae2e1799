"""Named tensors of two runs, side by side.

Figures are summed in float64, in pieces, so that a gigabyte of features needs no second gigabyte.
Polygraphy decides (largest absolute difference against a tolerance), on the piece with the largest
difference only: that decides for the whole tensor, and its statistics take a second for every
million values.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.record.runs import StageRow

Array = npt.NDArray[Any]
PIECE = 1 << 20
"""Number of values that are summed at a time."""


class Verdict(Protocol):
    """Anything with a name that is true in a condition when it passed."""

    @property
    def name(self) -> str:
        """Name of the stage."""

    def __bool__(self) -> bool: ...


def compare_tensor(name: str, reference: Array, candidate: Array, limit: float) -> StageRow:
    """Compare one tensor.

    Args:
        name: the stage's name.
        reference: an array.
        candidate: an array of the same shape and kind (float32 and float16 are one kind).
        limit: largest absolute difference that passes.

    Returns:
        A row that passes when both arrays are finite, of one shape and kind, and differ by at most
        the limit.
    """
    problem = _mismatch(reference, candidate)
    row = StageRow(
        name=name,
        kind="tensor",
        shape=reference.shape,
        passed=False,
        limit=limit,
        problem=problem,
    )
    if problem:
        return row
    largest, worst, total, squares, size = _sums(reference, candidate)
    count = reference.size
    rms_difference = math.sqrt(squares / count) if count else 0.0
    rms_reference = math.sqrt(size / count) if count else 0.0
    passed = _polygraphy_agrees(reference.reshape(-1)[worst], candidate.reshape(-1)[worst], limit)
    return msgspec.structs.replace(
        row,
        passed=passed,
        compared=count,
        max_abs=largest,
        mean_abs=total / count if count else 0.0,
        rms_difference=rms_difference,
        rms_reference=rms_reference,
        snr_db=snr_db(rms_reference, rms_difference),
        problem="" if passed else f"differs by up to {largest:.3g}, more than {limit:.3g}",
    )


def missing(name: str, expected: Array) -> StageRow:
    """Return the row of a stage that the candidate does not have.

    Args:
        name: the stage's name.
        expected: the reference's array.
    """
    return StageRow(name=name, kind="tensor", shape=expected.shape, passed=False, problem="missing")


def first_divergent(stages: Iterable[Verdict]) -> str | None:
    """Return the name of the first stage that did not pass; None where all passed."""
    return next((stage.name for stage in stages if not stage), None)


def snr_db(rms_signal: float, rms_noise: float) -> float | None:
    """Return the signal-to-noise ratio in dB; None where the signal or the noise is zero."""
    if rms_noise == 0.0 or rms_signal == 0.0:
        return None
    return 20.0 * math.log10(rms_signal / rms_noise)


def _mismatch(reference: Array, candidate: Array) -> str:
    if reference.shape != candidate.shape:
        return f"shape {tuple(candidate.shape)} where {tuple(reference.shape)} is expected"
    if reference.dtype.kind != candidate.dtype.kind:
        return f"type {candidate.dtype} where {reference.dtype} is expected"
    for side, values in (("the reference", reference), ("the candidate", candidate)):
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            return f"{bad} of {values.size} values of {side} are NaN or infinite"
    return ""


def _sums(reference: Array, candidate: Array) -> tuple[float, slice, float, float, float]:
    left, right = reference.reshape(-1), candidate.reshape(-1)
    largest = total = squares = size = 0.0
    worst = slice(0, PIECE)
    for start in range(0, left.size, PIECE):
        piece = slice(start, start + PIECE)
        a = left[piece].astype(np.float64)
        d = np.abs(right[piece].astype(np.float64) - a)
        if float(d.max()) > largest:
            largest, worst = float(d.max()), piece
        total += float(d.sum())
        squares += float(np.square(d).sum())
        size += float(np.square(a).sum())
    return largest, worst, total, squares, size


def _polygraphy_agrees(reference: Array, candidate: Array, limit: float) -> bool:
    if not reference.size:
        return True
    from polygraphy import comparator
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Polygraphy 0.53 renamed CompareFunc.simple, and 0.60 drops the old name.
        simple = getattr(comparator, "SimpleCompareFunc", None) or comparator.CompareFunc.simple
        agree = simple(check_shapes=True, rtol=0.0, atol=limit, check_error_stat="max")
        found = agree(
            comparator.IterationResult({"values": reference}),
            comparator.IterationResult({"values": candidate}),
        )
    return len(found) == 1 and all(bool(result) for result in found.values())
