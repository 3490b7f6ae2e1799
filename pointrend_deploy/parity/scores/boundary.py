"""Boundary IoU: the IoU of the inner bands of two masks (Cheng et al., CVPR 2021, section 3).

The band of a mask at distance d is what d erosions with a 3x3 square remove, where the outside of
the picture is outside the mask: the pixels of the mask that have a pixel outside it within d rows
and d columns. For a label map all classes are computed at once: a pixel is in its class's band
exactly when the (2d+1) x (2d+1) window around it is not all of its label. Ignored pixels of the
truth are left out on both sides and make no boundary, because an unlabelled pixel does not show
where an object ends.

The paper and its code (boundary-iou-api) define the IoU of one pair of masks; areas of bands are
summed over pictures here and averaged over classes as mIoU's areas are: over the classes whose band
the truth has. detectron2's ``SemSegEvaluator`` prints other figures of this name: it erodes the
label map itself and counts differences of labels as classes, and gives no mean of them.

:class:`Scores` sums mIoU and boundary IoU of every prediction of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.record.intervals import ScoreInterval
from pointrend_deploy.parity.record.runs import Against, ClassRow, MetricRow
from pointrend_deploy.parity.scores import labels as masks
from pointrend_deploy.parity.scores.intervals import LabelSamples, intervals
from pointrend_deploy.recipe.semantic import Recipe

Array = npt.NDArray[Any]
BANDS: dict[str, float | int] = {"2 %": 0.02, "1 px": 1, "2 px": 2, "3 px": 3}
"""Bands in reports: a float is a share of the picture's diagonal, an integer is in pixels."""


def band_distance(height: int, width: int, share: float = 0.02) -> int:
    """Return a share (0..1) of a picture's diagonal in pixels, rounded, at least 1."""
    return max(1, round(share * math.hypot(height, width)))


def inner_bands(labels: Array, distance_px: int, ignored: Array | None = None) -> Array:
    """Find the pixels within ``distance_px`` (chessboard distance) of another label or the outside.

    Args:
        labels: (H, W) integers from 0 to 32766 where not ignored.
        distance_px: d, at least 1.
        ignored: (H, W) bool: pixels that make no boundary and are in no band.

    Returns:
        (H, W) bool: the union of all classes' bands.
    """
    values = labels.astype(np.int16)  # half the time of int32
    high, low = np.iinfo(np.int16).max, np.iinfo(np.int16).min
    if ignored is None:
        ignored = np.zeros(labels.shape, np.bool_)
    least = _window_min(np.where(ignored, high, values), distance_px, outside=low)
    most = -_window_min(np.where(ignored, high, -values), distance_px, outside=-high)
    return np.asarray((least != most) & ~ignored)


class BoundaryIoU:
    """Sums intersections and unions of bands over pictures, by class, as mIoU sums areas.

    Args:
        num_classes: C.
        distance_px: an integer d in pixels, or a float: that share of each picture's diagonal.
        ignore_label: value of pixels of the truth that are not evaluated.

    Attributes:
        areas: (3, C) int64, in pixels: in both bands with the right label, in the truth's band, and
            in the prediction's band, by class.
    """

    def __init__(
        self, num_classes: int, distance_px: int | float = 0.02, ignore_label: int | None = None
    ) -> None:
        self.num_classes = num_classes
        self.distance_px = distance_px
        self.ignore_label = ignore_label
        self.areas = np.zeros((3, num_classes), dtype=np.int64)

    def add(self, prediction: Array, truth: Array) -> None:
        """Count one picture.

        Args:
            prediction: (H, W) integer labels.
            truth: (H, W) integer labels, or ``ignore_label``.

        Raises:
            DeployError: the shapes differ or a label is out of range.
        """
        masks.check_shapes(prediction, truth)
        ignored = np.zeros(truth.shape, np.bool_)
        if self.ignore_label is not None:
            ignored = truth == self.ignore_label
        for side, labels in (("the truth", truth), ("the prediction", prediction)):
            masks.check_range(labels[~ignored], self.num_classes, side)
        d = self.distance_px
        if isinstance(d, float):
            d = band_distance(truth.shape[0], truth.shape[1], d)
        found = inner_bands(prediction, d, ignored)
        expected = inner_bands(truth, d, ignored)
        both = found & expected & (prediction == truth)
        sides = truth[both], truth[expected], prediction[found]
        self.areas += np.stack([self._count(labels) for labels in sides])

    def per_class(self) -> npt.NDArray[np.float64]:
        """Return the boundary IoU of each class, (C,).

        It is NaN for a class whose band the truth does not have.
        """
        return masks.iou_of_areas(self.areas)

    def mean(self) -> float:
        """Return the mean over the classes whose band the truth has; NaN where there are none."""
        return masks.mean_of_present(self.per_class())

    def _count(self, labels: Array) -> npt.NDArray[np.int64]:
        return np.bincount(labels.astype(np.int64), minlength=self.num_classes)


class LabelScores:
    """Sums mIoU and the boundary IoU of each band over pictures, for one kind of prediction.

    Args:
        num_classes: C.
        ignore_label: value in the truth that is not evaluated.
        bands: distance by name, as in :class:`BoundaryIoU`.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int | None = None,
        bands: Mapping[str, float | int] = BANDS,
    ) -> None:
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.bands = {name: BoundaryIoU(num_classes, d, ignore_label) for name, d in bands.items()}
        self.pictures = 0

    def add(self, prediction: Array, truth: Array) -> None:
        """Count one picture: two (H, W) label maps.

        Raises:
            DeployError: see :func:`pointrend_deploy.parity.scores.labels.confusion`; nothing is
                counted then.
        """
        self.matrix += masks.confusion(prediction, truth, self.num_classes, self.ignore_label)
        for band in self.bands.values():
            band.add(prediction, truth)
        self.pictures += 1

    def merge(self, other: LabelScores) -> None:
        """Add the counts of another object with the same classes and bands."""
        self.matrix += other.matrix
        self.pictures += other.pictures
        for name, band in self.bands.items():
            band.areas += other.bands[name].areas

    def band_areas(self, band: str) -> npt.NDArray[np.int64]:
        """Return the areas of a band, (3, C); see :class:`BoundaryIoU`."""
        return self.bands[band].areas

    @property
    def agreement(self) -> float:
        """Share (0..1) of counted pixels with the right label; NaN before any is counted."""
        total = int(self.matrix.sum())
        return float(np.trace(self.matrix)) / total if total else float("nan")


PREDICTIONS = ("coarse", "reference", "bundle")


class Scores:
    """Sums the scores of every prediction over pictures, against the truth and the reference.

    Predictions are ``coarse`` (the coarse head alone), ``reference`` (PyTorch) and ``bundle``.

    Args:
        recipe: has the classes.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.totals: dict[tuple[str, Against], LabelScores] = {}
        self._samples = {who: LabelSamples() for who in ("reference", "bundle")}

    def add(
        self, labels: Mapping[str, Array], truth: npt.NDArray[np.int32] | None
    ) -> dict[str, tuple[float | None, float | None]]:
        """Count one picture.

        Args:
            labels: (H, W) labels by prediction; at least ``reference`` and ``bundle``.
            truth: (H, W) int32 labels; None where the picture has none.

        Returns:
            This picture's own mIoU and 2 px boundary IoU by prediction; empty without a truth.
        """
        self._count("bundle", "reference", labels["bundle"], labels["reference"])
        own: dict[str, tuple[float | None, float | None]] = {}
        if truth is None:
            return own
        for who in PREDICTIONS:
            if who in labels:
                one = self._count(who, "truth", labels[who], truth)
                if who in self._samples:
                    self._samples[who].add(one)
                own[who] = (
                    number(masks.mean_iou(one.matrix)),
                    number(one.bands["2 px"].mean()),
                )
        return own

    def rows(self) -> tuple[MetricRow, ...]:
        """Return a row for each prediction; those against the truth first."""
        keys = sorted(self.totals, key=lambda key: (key[1] != "truth", PREDICTIONS.index(key[0])))
        return tuple(self._row(who, against, self.totals[who, against]) for who, against in keys)

    def intervals(self) -> tuple[ScoreInterval, ...]:
        """Return how far the bundle's scores, and their change beside the reference's, scatter."""
        return intervals(self._samples["bundle"], self._samples["reference"])

    def _count(self, who: str, against: Against, labels: Array, other: Array) -> LabelScores:
        classes = self.recipe.classes
        one = LabelScores(len(classes.names), classes.ignore_label if against == "truth" else None)
        one.add(labels, other)
        if (who, against) in self.totals:
            self.totals[who, against].merge(one)
        else:
            self.totals[who, against] = one
        return one

    def _row(self, who: str, against: Against, total: LabelScores) -> MetricRow:
        per_band = {name: band.per_class() for name, band in total.bands.items()}
        classes = tuple(
            ClassRow(
                name=name,
                iou=number(iou),
                boundary_iou={band: number(values[index]) for band, values in per_band.items()},
            )
            for index, (name, iou) in enumerate(
                zip(self.recipe.classes.names, masks.iou_per_class(total.matrix), strict=True)
            )
        )
        return MetricRow(
            prediction=who,
            against=against,
            pictures=total.pictures,
            agreement=number(total.agreement),
            miou=number(masks.mean_iou(total.matrix)),
            boundary_iou={name: number(band.mean()) for name, band in total.bands.items()},
            classes=classes,
        )


def number(value: float) -> float | None:
    """Return a float, or None for NaN, which is a score without any pixel."""
    return None if math.isnan(value) else float(value)


def _window_min(values: Array, distance: int, outside: int) -> Array:
    """Return the minimum over each pixel's (2d+1) x (2d+1) window.

    Beyond the edge of the picture the value is ``outside``.
    """
    padded = np.pad(values, distance, constant_values=outside)
    for axis in (0, 1):
        moved = np.moveaxis(padded, axis, 0)
        width, wanted = 1, 2 * distance + 1
        while width < wanted:  # windows double, so the cost is log d and not d
            shift = min(width, wanted - width)
            moved = np.minimum(moved[:-shift], moved[shift:])
            width += shift
        padded = np.moveaxis(moved, 0, axis)
    return padded
