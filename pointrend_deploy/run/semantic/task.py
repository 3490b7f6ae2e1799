"""What a run of a semantic bundle writes: label maps and overlays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from pointrend_deploy import atomic
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.run.overlay import class_colours, label_png, overlay
from pointrend_deploy.run.results import (
    LABELS,
    OVERLAYS,
    Array,
    LabelsFrom,
    PictureResult,
    class_shares,
    printable,
)
from pointrend_deploy.run.semantic.labels import labels_at_picture_size
from pointrend_deploy.run.writer import Clock, Item, PictureWriter


class LabelWriter(PictureWriter):
    """Writes ``labels/NAME.png`` and ``overlays/NAME.jpg``."""

    task = "semantic"
    owned = (LABELS, OVERLAYS)

    def write(
        self, outputs: dict[str, npt.NDArray[Any]], row: int, item: Item, clock: Clock
    ) -> PictureResult:
        """As :meth:`PictureWriter.write`."""
        classes = self.manifest.semantic.classes
        colours = class_colours(classes)
        prediction = semantic_prediction(outputs, row, item.fitted)
        labels = prediction["labels"]
        item.ms["labels"] = clock.lap()
        label_file, overlay_file = f"{LABELS}/{item.name}.png", None
        atomic.write_bytes(self.out / label_file, label_png(labels, colours))
        if self.overlays:
            overlay_file = self._write_overlay(overlay(item.picture.rgb, labels, colours), item)
        item.ms["write"] = clock.lap()
        return PictureResult(
            file=item.file,
            labels=printable(label_file),
            overlay=printable(overlay_file) if overlay_file else None,
            picture_hw=item.fitted.picture_hw,
            fitted_hw=item.fitted.fitted_hw,
            labels_from=prediction["labels_from"],
            class_shares=class_shares(labels, classes.names),
            ms=item.rounded_ms(),
        )


class _Labels(TypedDict):
    labels: npt.NDArray[np.uint8]
    labels_from: LabelsFrom


class Prediction(_Labels, total=False):
    """What a semantic bundle says of one picture.

    Keys:
        labels: (H, W) uint8 at the picture's own size.
        labels_from: ``exact``, ``logits-bilinear`` or ``labels-nearest``; see
            :func:`pointrend_deploy.run.semantic.labels.labels_at_picture_size`.
        logits: (C, Hp, Wp) float32 on the padded canvas; only where the bundle exports them.
        stages: every other output by name, without its batch axis; only where exported.
    """

    logits: npt.NDArray[np.float32]
    stages: dict[str, Array]


def semantic_prediction(outputs: Mapping[str, Array], row: int, picture: Fitted) -> Prediction:
    """The prediction of the picture in one row of a batch's outputs."""
    rows = {name: array[row] for name, array in outputs.items()}
    labels, logits = rows.pop("labels", None), rows.pop("logits", None)
    found, labels_from = labels_at_picture_size(
        labels, logits, picture.fitted_hw, picture.picture_hw
    )
    prediction = Prediction(labels=found, labels_from=labels_from)
    if logits is not None:
        prediction["logits"] = logits
    if rows:
        prediction["stages"] = rows
    return prediction
