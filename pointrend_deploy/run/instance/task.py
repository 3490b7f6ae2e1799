"""What a run of an instance bundle writes: COCO results and overlays.

COCO's form of results (cocodataset.org, "Results Format"): a list of detections, each with the
picture's id, the data set's id of the class, the box as x, y, width and height, the score, and the
mask as RLE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy import atomic
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.run.instance.instances import OUTPUTS, Instances, instances_at_picture_size
from pointrend_deploy.run.instance.masks import RLE
from pointrend_deploy.run.instance.overlay import instance_overlay, thing_colours
from pointrend_deploy.run.results import (
    DETECTIONS,
    OVERLAYS,
    Array,
    InstanceResult,
    printable,
)
from pointrend_deploy.run.writer import Clock, Item, PictureWriter

_MOST_DIGITS = 15
"""Of a file's number: below 2**53, which every reader of JSON keeps exactly."""


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """One thing found, as COCO's tools read it.

    Attributes:
        image_id: of the picture; ``results.json`` says which file that is.
        category_id: the data set's id of the class, from the recipe.
        bbox: x, y, width and height in pixels of the picture.
        score: in (0, 1].
        segmentation: the mask at the picture's size.
    """

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float
    segmentation: RLE


class DetectionWriter(PictureWriter):
    """Writes ``overlays/NAME.jpg`` and, at the end, ``detections.json``.

    Args:
        manifest: the bundle's.
        out: the folder for the results.
        overlays: whether to draw.
        image_ids: id of each picture, by file.
        draw_above: score from which a thing is drawn; the results hold all.
    """

    task = "instance"
    owned = (OVERLAYS, DETECTIONS)

    def __init__(
        self,
        manifest: Manifest,
        out: Path,
        overlays: bool,
        image_ids: Mapping[Path, int],
        draw_above: float,
    ) -> None:
        super().__init__(manifest, out, overlays)
        self._recipe, _ = manifest.instances
        self._colours = thing_colours(self._recipe.classes)
        self._image_ids = image_ids
        self._draw_above = draw_above
        self._pictures = 0
        self._lines: list[bytes] = []

    def write(
        self, outputs: dict[str, npt.NDArray[Any]], row: int, item: Item, clock: Clock
    ) -> InstanceResult:
        """As :meth:`PictureWriter.write`."""
        names, image_id = self._recipe.classes.names, self._image_ids[item.picture.path]
        instances = instance_prediction(self.manifest, outputs, row, item.fitted)["instances"]
        item.ms["instances"] = clock.lap()
        lines = [
            msgspec.json.encode(found)
            for found in coco_detections(instances, image_id, self._recipe.category_ids)
        ]
        overlay_file = None
        if self.overlays:
            drawn = instance_overlay(
                item.picture.rgb, instances, names, self._colours, self._draw_above
            )
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


def coco_detections(
    instances: Instances, image_id: int, category_ids: Sequence[int]
) -> Iterator[Detection]:
    """The things of one picture in COCO's form, by falling score.

    Numbers are the shortest decimals that stand for the same float32.
    """
    for index, (x1, y1, x2, y2) in enumerate(instances.boxes):
        yield Detection(
            image_id=image_id,
            category_id=category_ids[instances.classes[index]],
            bbox=(_short(x1), _short(y1), _short(x2 - x1), _short(y2 - y1)),
            score=_short(instances.scores[index]),
            segmentation=instances.rle(index),
        )


def _short(value: np.float32) -> float:
    return float(str(value))


def class_counts(instances: Instances, names: Sequence[str]) -> dict[str, int]:
    """How many of each class that occurs, by name, in the classes' order."""
    counts = np.bincount(instances.classes, minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def image_ids(files: Sequence[Path]) -> list[int]:
    """An id for each picture of a run.

    Where every file's name is a number and no two are the same (COCO's are:
    ``000000000139.jpg`` is picture 139), the numbers; otherwise 1, 2, ... in the files' order.
    """
    stems = [file.stem for file in files]
    if all(stem.isascii() and stem.isdigit() and len(stem) <= _MOST_DIGITS for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(files) + 1))


class _Instances(TypedDict):
    instances: Instances


class InstancePrediction(_Instances, total=False):
    """What an instance bundle says of one picture.

    Keys:
        instances: boxes, scores, classes and masks at the picture's own size.
        stages: every output beside the five that all instance bundles give, by name, without its
            batch axis; only where exported.
    """

    stages: dict[str, Array]


def instance_prediction(
    manifest: Manifest, outputs: Mapping[str, Array], row: int, picture: Fitted
) -> InstancePrediction:
    """The prediction of the picture in one row of a batch's outputs.

    Raises:
        DeployError: the bundle is semantic, or its outputs cannot be right; see
            :func:`pointrend_deploy.run.instance.instances.instances_at_picture_size`.
    """
    recipe, export = manifest.instances
    rows = {name: array[row] for name, array in outputs.items()}
    prediction = InstancePrediction(
        instances=instances_at_picture_size(
            rows, export.masks, picture.fitted_hw, picture.picture_hw, recipe.num_classes
        )
    )
    if stages := {name: array for name, array in rows.items() if name not in OUTPUTS}:
        prediction["stages"] = stages
    return prediction
