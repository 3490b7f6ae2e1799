"""A run of an instance bundle: predictions, COCO results, overlays, rows of ``results.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.manifest import GraphEnds, Manifest
from pointrend_deploy.errors import UsageError
from pointrend_deploy.pictures.canvas import Fitted, UInt8, fit
from pointrend_deploy.pictures.files import printable
from pointrend_deploy.recipe.instance import InstanceClassesSpec
from pointrend_deploy.run.instance.detections import class_counts, coco_detections, image_ids
from pointrend_deploy.run.instance.instances import (
    OUTPUTS,
    instances_at_picture_size,
    with_masks,
)
from pointrend_deploy.run.instance.overlay import DRAW_ABOVE, instance_overlay, thing_colours
from pointrend_deploy.run.instance.reference import InstanceReference
from pointrend_deploy.run.prediction import Prediction
from pointrend_deploy.run.results import DETECTIONS, OVERLAYS
from pointrend_deploy.run.writer import (
    Array,
    Clock,
    GraphCall,
    Item,
    PictureOptions,
    PictureWriter,
)
from pointrend_deploy.wording import count_of

_CLASSES_SHOWN = 5
"""Classes that the summary of a run names; it counts the others."""


class InstancePrediction(Prediction):
    """What an instance bundle predicts for one picture.

    Keys:
        instances: boxes, scores, classes and masks at the picture's own size.
        stages: every output beside the five that all instance bundles give, by name, without its
            batch axis; only where exported.

    Args:
        answers: by key.
        classes: of the recipe.
    """

    def __init__(self, answers: Mapping[str, object], classes: InstanceClassesSpec) -> None:
        super().__init__(answers)
        self._classes, self.class_names = classes, classes.names
        self.picture_hw = self["instances"].hw

    def drawn_on(self, rgb: UInt8, above: float | None = None) -> UInt8:
        """Draw masks, boxes, names and scores; see :class:`Prediction`."""
        _check_score(above)
        return instance_overlay(
            rgb,
            self["instances"],
            self.class_names,
            thing_colours(self._classes),
            DRAW_ABOVE if above is None else above,
        )


def _check_score(above: float | None, option: str = "above") -> None:
    if above is not None and not 0 <= above <= 1:
        raise UsageError(f"scores run from 0 to 1; {option} is {above}", "such as 0.3")


class InstanceResult(msgspec.Struct, frozen=True, kw_only=True):
    """The row of ``results.json`` for one picture; the instances are in ``detections.json``.

    Attributes:
        file: the picture, relative to the folder it was found in.
        image_id: the picture's id in ``detections.json``.
        overlay: its overlay, relative to the results; null where none was written.
        picture_hw: height and width of the picture and of its masks.
        fitted_hw: height and width of the picture on the canvas.
        detections: how many instances were found.
        class_counts: how many by class name, in the classes' order, zeros left out.
        ms: milliseconds of the steps ``read``, ``prepare``, ``infer`` (the batch's time divided
            by its pictures), ``instances`` (at the picture's size) and ``write``.
    """

    file: str
    image_id: int
    overlay: str | None
    picture_hw: tuple[int, int]
    fitted_hw: tuple[int, int]
    detections: int
    class_counts: dict[str, int]
    ms: dict[str, float]


class InstanceTask:
    """See :class:`pointrend_deploy.run.task.RunTask`."""

    name: ClassVar[str] = "instance"
    keys: ClassVar[tuple[str, ...]] = ("instances",)
    owned: ClassVar[tuple[str, ...]] = (OVERLAYS, DETECTIONS)

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._recipe, self._export = manifest.instances

    def fit(self, image: UInt8) -> Fitted:
        """Put a picture on the canvas."""
        return fit(image, self._manifest)

    def graphs(self) -> tuple[GraphEnds, ...]:
        """List the one graph, or the detector and the mask graph of a split layout."""
        first = GraphEnds(self._manifest.inputs, self._manifest.outputs)
        export = self._export
        if export.layout == "single":
            return (first,)
        return first, GraphEnds(export.mask_inputs, export.mask_outputs, most=export.detections)

    def infer(self, calls: Sequence[GraphCall], batch: dict[str, Array]) -> dict[str, Array]:
        """Call the one graph, or the detector and then the mask graph for each picture."""
        first, *further = calls
        outputs = first(batch)
        if not further:
            return outputs
        (masks,) = further
        return with_masks(self._manifest, outputs, lambda inputs: masks(inputs)["masks"])

    def finish(self, outputs: Mapping[str, Array], row: int, picture: Fitted) -> InstancePrediction:
        """Make the prediction of the picture in one row of a batch's outputs.

        Raises:
            DeployError: the outputs cannot be right; see
                :func:`pointrend_deploy.run.instance.instances.instances_at_picture_size`.
        """
        rows = {name: array[row] for name, array in outputs.items()}
        found = instances_at_picture_size(
            rows,
            self._export.masks,
            picture.fitted_hw,
            picture.picture_hw,
            self._recipe.num_classes,
        )
        classes = self._recipe.classes
        answers: dict[str, object] = {"instances": replace(found, names=classes.names)}
        if stages := {name: array for name, array in rows.items() if name not in OUTPUTS}:
            answers["stages"] = stages
        return InstancePrediction(answers, classes)

    def check(self, options: PictureOptions) -> None:
        """Refuse a score to draw from that no instance can have."""
        _check_score(options.draw_above, "--draw-above")

    def writer(self, out: Path, options: PictureOptions, files: Sequence[Path]) -> PictureWriter:
        """Make a writer of COCO results."""
        ids = dict(zip(files, image_ids(files), strict=True))
        return _DetectionWriter(self, self._manifest, out, options, ids)

    def reference(self, weights: Path) -> InstanceReference:
        """Build the PyTorch model."""
        return InstanceReference(self._manifest, weights)

    @staticmethod
    def summary(pictures: Sequence[InstanceResult], out: Path) -> tuple[str, ...]:
        """Name the file of detections, and count them by class."""
        total = sum(row.detections for row in pictures)
        none = sum(not row.detections for row in pictures)
        empty = f", none in {count_of(none, 'picture')}" if none else ""
        return (
            f"detections in {out / DETECTIONS}",
            f"{count_of(total, 'detection')}{empty}{_by_class(pictures)}",
        )


def _by_class(pictures: Sequence[InstanceResult]) -> str:
    counts: Counter[str] = Counter()
    for row in pictures:
        counts.update(row.class_counts)
    best = counts.most_common(_CLASSES_SHOWN)
    named = ", ".join(f"{count} {name}" for name, count in best)
    more = len(counts) - len(best)
    others = f" and {count_of(more, 'other class', 'other classes')}" if more else ""
    return f": {named}{others}" if named else ""


class _DetectionWriter(PictureWriter):
    """Writes ``overlays/NAME.jpg`` and, at the end, ``detections.json``.

    Args:
        task: of the bundle.
        manifest: the bundle's.
        out: the folder for the results.
        options: whether to draw overlays, and from which score.
        image_ids: id of each picture, by file.
    """

    def __init__(
        self,
        task: InstanceTask,
        manifest: Manifest,
        out: Path,
        options: PictureOptions,
        image_ids: Mapping[Path, int],
    ) -> None:
        super().__init__(manifest, out, options.overlays)
        self._task = task
        self._recipe, _ = manifest.instances
        self._image_ids = image_ids
        self._draw_above = options.draw_above
        self._pictures = 0
        self._lines: list[bytes] = []

    def write(
        self, outputs: dict[str, Array], row: int, item: Item, clock: Clock
    ) -> InstanceResult:
        """Keep the detections of one picture, and write its overlay."""
        names, image_id = self._recipe.classes.names, self._image_ids[item.picture.path]
        prediction = self._task.finish(outputs, row, item.fitted)
        instances = prediction["instances"]
        item.ms["instances"] = clock.lap()
        lines = [
            msgspec.json.encode(found)
            for found in coco_detections(instances, image_id, self._recipe.category_ids)
        ]
        overlay_file = None
        if self.overlays:
            drawn = prediction.drawn_on(item.picture.rgb, self._draw_above)
            overlay_file = self._write_overlay(drawn, item)
        self._lines += lines
        self._pictures += 1
        item.ms["write"] = clock.lap()
        return InstanceResult(
            file=item.file,
            image_id=image_id,
            overlay=printable(overlay_file) if overlay_file else None,
            picture_hw=item.fitted.picture_hw,
            fitted_hw=item.fitted.fitted_hw,
            detections=len(instances),
            class_counts=class_counts(instances, names),
            ms=item.rounded_ms(),
        )

    def close(self) -> None:
        """Write ``detections.json`` with what was found so far.

        Before the first picture is done nothing is written, so that the file of an earlier run
        stays until there is a better one.
        """
        if self._pictures:
            text = b"[\n" + b",\n".join(self._lines) + b"\n]\n" if self._lines else b"[]\n"
            atomic.write_bytes(self.out / DETECTIONS, text)
