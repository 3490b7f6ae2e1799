"""mIoU and boundary IoU of every kind of prediction, against the truth and each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity import masks
from pointrend_deploy.parity.boundary import LabelScores
from pointrend_deploy.parity.results import Against, ClassRow, MetricRow
from pointrend_deploy.recipe import Recipe

Array = npt.NDArray[Any]
PREDICTIONS = ("coarse", "reference", "bundle")


class Scores:
    """Sums over pictures; ``coarse`` is the coarse head alone, ``reference`` PyTorch."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.totals: dict[tuple[str, Against], LabelScores] = {}

    def add(
        self, labels: Mapping[str, Array], truth: npt.NDArray[np.int32] | None
    ) -> dict[str, tuple[float | None, float | None]]:
        """Count one picture.

        Args:
            labels: (H, W) labels by kind of prediction; ``reference`` and ``bundle`` at least.
            truth: (H, W) int32, or None where the picture has none.

        Returns:
            This picture's own mIoU and 2 px boundary IoU by kind; empty without truth.
        """
        self._count("bundle", "reference", labels["bundle"], labels["reference"])
        own: dict[str, tuple[float | None, float | None]] = {}
        if truth is None:
            return own
        for who in PREDICTIONS:
            if who in labels:
                one = self._count(who, "truth", labels[who], truth)
                own[who] = (
                    number(masks.mean_iou(one.matrix)),
                    number(one.bands["2 px"].mean()),
                )
        return own

    def rows(self) -> tuple[MetricRow, ...]:
        """A row for each prediction, truth first."""
        keys = sorted(self.totals, key=lambda key: (key[1] != "truth", PREDICTIONS.index(key[0])))
        return tuple(self._row(who, against, self.totals[who, against]) for who, against in keys)

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
    """A float, or None for NaN (a score of nothing)."""
    return None if math.isnan(value) else float(value)
