"""A run of a semantic bundle: predictions, label maps, overlays and rows of ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.manifest import GraphEnds, Manifest
from pointrend_deploy.errors import UsageError
from pointrend_deploy.pictures.canvas import Fitted, UInt8, fit
from pointrend_deploy.pictures.files import printable
from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.run.overlay import class_colours, label_png, overlay
from pointrend_deploy.run.prediction import Prediction
from pointrend_deploy.run.results import LABELS, OVERLAYS
from pointrend_deploy.run.semantic.labels import LabelsFrom, class_shares, labels_at_picture_size
from pointrend_deploy.run.semantic.reference import SemanticReference
from pointrend_deploy.run.writer import (
    Array,
    Clock,
    GraphCall,
    Item,
    PictureOptions,
    PictureWriter,
)


class LabelPrediction(Prediction):
    """What a semantic bundle predicts for one picture.

    Keys:
        labels: (H, W) uint8 at the picture's own size.
        labels_from: ``exact``, ``logits-bilinear`` or ``labels-nearest``; see
            :func:`pointrend_deploy.run.semantic.labels.labels_at_picture_size`.
        logits: (C, Hp, Wp) float32 on the padded canvas; only where the bundle exports them.
        stages: every other output by name, without its batch axis; only where exported.

    Label k is the class ``class_names[k]``.

    Args:
        answers: by key.
        classes: of the recipe.
    """

    def __init__(self, answers: Mapping[str, object], classes: ClassesSpec) -> None:
        super().__init__(answers)
        self._classes, self.class_names = classes, classes.names
        self.picture_hw = self["labels"].shape

    def drawn_on(self, rgb: UInt8, above: float | None = None) -> UInt8:
        """Tint the picture in its classes' colours; see :class:`Prediction`."""
        _refuse_scores(above)
        return overlay(rgb, self["labels"], class_colours(self._classes))


def _refuse_scores(above: float | None, option: str = "above") -> None:
    if above is not None:
        raise UsageError(
            "this is a semantic bundle: its labels have no scores to draw by", f"leave {option} out"
        )


class PictureResult(msgspec.Struct, frozen=True, kw_only=True):
    """The row of ``results.json`` for one picture that a semantic bundle labelled.

    Attributes:
        file: the picture, relative to the folder it was found in.
        labels: its label map, relative to the results: a palette PNG of class numbers.
        overlay: its overlay, relative to the results; null where none was written.
        picture_hw: height and width of the picture and of its label map.
        fitted_hw: height and width of the picture on the canvas.
        labels_from: ``exact``, ``logits-bilinear`` or ``labels-nearest``.
        class_shares: share of the pixels by class name, in the classes' order, zeros left out.
        ms: milliseconds of the steps ``read``, ``prepare``, ``infer`` (the batch's time divided
            by its pictures), ``labels`` (at the picture's size) and ``write``.
    """

    file: str
    labels: str
    overlay: str | None
    picture_hw: tuple[int, int]
    fitted_hw: tuple[int, int]
    labels_from: LabelsFrom
    class_shares: dict[str, float]
    ms: dict[str, float]


class SemanticTask:
    """See :class:`pointrend_deploy.run.task.RunTask`."""

    name: ClassVar[str] = "semantic"
    keys: ClassVar[tuple[str, ...]] = ("labels", "labels_from")
    owned: ClassVar[tuple[str, ...]] = (LABELS, OVERLAYS)

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def fit(self, image: UInt8) -> Fitted:
        """Put a picture on the canvas."""
        return fit(image, self._manifest)

    def graphs(self) -> tuple[GraphEnds, ...]:
        """List the one graph."""
        return (GraphEnds(self._manifest.inputs, self._manifest.outputs),)

    def infer(self, calls: Sequence[GraphCall], batch: dict[str, Array]) -> dict[str, Array]:
        """Call the one graph."""
        (call,) = calls
        return call(batch)

    def finish(self, outputs: Mapping[str, Array], row: int, picture: Fitted) -> LabelPrediction:
        """Make the prediction of the picture in one row of a batch's outputs."""
        rows = {name: array[row] for name, array in outputs.items()}
        labels, logits = rows.pop("labels", None), rows.pop("logits", None)
        found, labels_from = labels_at_picture_size(
            labels, logits, picture.fitted_hw, picture.picture_hw
        )
        answers: dict[str, object] = {"labels": found, "labels_from": labels_from}
        if logits is not None:
            answers["logits"] = logits
        if rows:
            answers["stages"] = rows
        return LabelPrediction(answers, self._manifest.semantic.classes)

    def check(self, options: PictureOptions) -> None:
        """Refuse a score to draw from: labels have no scores."""
        _refuse_scores(options.draw_above, "--draw-above")

    def writer(self, out: Path, options: PictureOptions, files: Sequence[Path]) -> PictureWriter:
        """Make a writer of label maps."""
        return _LabelWriter(self, self._manifest, out, options.overlays)

    def reference(self, weights: Path) -> SemanticReference:
        """Build the PyTorch model."""
        return SemanticReference(self._manifest, weights)

    @staticmethod
    def summary(pictures: Sequence[PictureResult], out: Path) -> tuple[str, ...]:
        """Name the folder of label maps, and how labels came to the pictures' size."""
        ways = sorted({row.labels_from for row in pictures})
        return (
            f"label maps in {out / LABELS}",
            f"labels at the pictures' own size: {', '.join(ways)}",
        )


class _LabelWriter(PictureWriter):
    """Writes ``labels/NAME.png`` and ``overlays/NAME.jpg``."""

    def __init__(self, task: SemanticTask, manifest: Manifest, out: Path, overlays: bool) -> None:
        super().__init__(manifest, out, overlays)
        self._task = task
        self._classes = manifest.semantic.classes
        self._colours = class_colours(self._classes)

    def write(self, outputs: dict[str, Array], row: int, item: Item, clock: Clock) -> PictureResult:
        """Write the label map and the overlay of one picture."""
        prediction = self._task.finish(outputs, row, item.fitted)
        labels = prediction["labels"]
        item.ms["labels"] = clock.lap()
        label_file, overlay_file = f"{LABELS}/{item.name}.png", None
        atomic.write_bytes(self.out / label_file, label_png(labels, self._colours))
        if self.overlays:
            overlay_file = self._write_overlay(prediction.drawn_on(item.picture.rgb), item)
        item.ms["write"] = clock.lap()
        return PictureResult(
            file=item.file,
            labels=printable(label_file),
            overlay=printable(overlay_file) if overlay_file else None,
            picture_hw=item.fitted.picture_hw,
            fitted_hw=item.fitted.fitted_hw,
            labels_from=prediction["labels_from"],
            class_shares=class_shares(labels, self._classes.names),
            ms=item.rounded_ms(),
        )
