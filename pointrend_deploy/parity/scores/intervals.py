"""How far scores depend on which pictures were taken: 95 % intervals by the bootstrap.

As many pictures as there are get drawn with replacement, and every score is computed anew from the
drawn ones; over all draws the middle 95 % of the scores are the interval (the percentile interval
of Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Both sides of a
difference are scored on the same draws, so pictures that are hard for both cancel out. A score is
always that of all drawn pictures together, never a mean of single pictures' scores.

What each picture adds to a score (areas by class, matched detections) is kept, so a draw costs
sums, and no picture is looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.record.intervals import ScoreInterval
from pointrend_deploy.parity.scores import labels as masks

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

LEVEL: Final = 0.95
DRAWS: Final = 1000
"""An end of the interval then scatters by a fiftieth of the interval's length: the standard error
of a quantile, sqrt(0.025 * 0.975 / DRAWS) over the normal density there, is 0.085 of the 3.9
standard deviations between the ends."""
MANY_PICTURES, DRAWS_OF_MANY = 1000, 200
"""With more pictures than that the interval is short, and fewer draws, whose ends scatter by a
twentieth of it, keep the work small beside running the models."""
SEED: Final = 20_210_330
"""The same pictures always give the same intervals."""
LEAST_PICTURES: Final = 10
"""Fewer pictures give no interval: the draws of so few cannot show how others would differ."""
SCORED: Final = {"boundary IoU, 2 px": "2 px", "boundary IoU, 2 %": "2 %"}
"""The boundary scores of label maps that have intervals, with their bands."""


class Samples(Protocol):
    """What every picture of one side adds to its scores."""

    @property
    def pictures(self) -> int:
        """Number of pictures, N."""

    def scores(self, counts: Array) -> Mapping[str, Float64]:
        """Return every score of each draw.

        Args:
            counts: (B, N) integers: how often each picture is in a draw.

        Returns:
            (B,) each, in 0..1, by the score's name; NaN where a draw has no such score.
        """
        ...


class CountedLabels(Protocol):
    """The counts of one picture's labels; see ``parity.scores.boundary.LabelScores``."""

    matrix: Array

    def band_areas(self, band: str) -> Array:
        """Return the (3, C) areas of one band."""


class LabelSamples:
    """The areas of every picture, from which mIoU and boundary IoU are made."""

    def __init__(self) -> None:
        self._areas: dict[str, list[Array]] = {name: [] for name in ("mIoU", *SCORED)}

    def add(self, one: CountedLabels) -> None:
        """Add one picture.

        Args:
            one: the counts of that picture alone.
        """
        self._areas["mIoU"].append(masks.areas(one.matrix).astype(np.int32))
        for name, band in SCORED.items():
            self._areas[name].append(one.band_areas(band).astype(np.int32))

    @property
    def pictures(self) -> int:
        """See :class:`Samples`."""
        return len(self._areas["mIoU"])

    def scores(self, counts: Array) -> Mapping[str, Float64]:
        """See :class:`Samples`."""
        weights = counts.astype(np.float64)
        found = {}
        for name, areas in self._areas.items():
            each = np.stack(areas).astype(np.float64)  # sums stay whole numbers below 2^53
            total = (weights @ each.reshape(len(each), -1)).reshape(-1, *each.shape[1:])
            found[name] = mean_of_rows(masks.iou_of_areas(total))
        return found


def mean_of_rows(values: Float64) -> Float64:
    """Return the mean of each row's values that are not NaN, (B,); NaN where a row has none.

    Args:
        values: (B, C).
    """
    known = ~np.isnan(values)
    number = known.sum(axis=1)
    out = np.full(len(values), np.nan)
    np.divide(np.where(known, values, 0.0).sum(axis=1), number, out=out, where=number > 0)
    return out


def draw(pictures: int) -> npt.NDArray[np.int64]:
    """Draw pictures with replacement.

    Args:
        pictures: N.

    Returns:
        (B, N): how often each picture is in a draw; each row adds up to N. Always the same. B is
        :data:`DRAWS`, or :data:`DRAWS_OF_MANY` for more than :data:`MANY_PICTURES` pictures.
    """
    draws = DRAWS if pictures <= MANY_PICTURES else DRAWS_OF_MANY
    picked = np.random.default_rng(SEED).integers(0, pictures, (draws, pictures))
    picked += np.arange(draws)[:, None] * pictures
    return np.bincount(picked.reshape(-1), minlength=draws * pictures).reshape(draws, pictures)


def intervals(own: Samples | None, other: Samples | None) -> tuple[ScoreInterval, ...]:
    """Return the interval of every score of one side, and of its change beside another side.

    Args:
        own: the side.
        other: the side it is compared with, over the same pictures in the same order.

    Returns:
        A row for each score that both sides have. None without samples, for fewer than
        :data:`LEAST_PICTURES` pictures, and for a score that no draw has.
    """
    if own is None or other is None or own.pictures != other.pictures:
        return ()
    number = own.pictures
    if number < LEAST_PICTURES:
        return ()
    counts = draw(number)
    all_once = np.ones((1, number), np.int64)
    values, bases = own.scores(all_once), other.scores(all_once)
    drawn, beside = own.scores(counts), other.scores(counts)
    rows = []
    for name, value in values.items():
        base = bases[name]
        changes = drawn[name] - beside[name]
        known = ~np.isnan(changes)
        if np.isnan(value - base).any() or not known.any():
            continue
        low, high = _middle(drawn[name][known])
        change_low, change_high = _middle(changes[known])
        rows.append(
            ScoreInterval(
                score=name,
                value=float(value[0]),
                low=low,
                high=high,
                change=float(value[0] - base[0]),
                change_low=change_low,
                change_high=change_high,
                pictures=number,
                draws=int(known.sum()),
            )
        )
    return tuple(rows)


def _middle(values: Float64) -> tuple[float, float]:
    """Return the ends of the middle ``LEVEL`` of values, (B,)."""
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(values, (tail, 1.0 - tail))
    return float(low), float(high)
