"""What a run of a semantic bundle writes: label maps and overlays."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from pointrend_deploy import atomic
from pointrend_deploy.run.overlay import class_colours, label_png, overlay
from pointrend_deploy.run.picture_writer import Clock, Item, PictureWriter
from pointrend_deploy.run.prediction import semantic_prediction
from pointrend_deploy.run.results import LABELS, OVERLAYS, PictureResult, class_shares, printable


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
