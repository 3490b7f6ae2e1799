"""Detections in COCO's results format, and the ids of their pictures.

The format (cocodataset.org, "Results Format") is a list of detections. Each has the picture's id,
the data set's id of the class, the box as x, y, width and height, the score, and the mask as RLE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.run.instance.masks import RLE

_MOST_DIGITS = 15
"""Digits of a number in a file's name: below 2**53, which every reader of JSON keeps exactly."""


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """One detection, as COCO's tools read it.

    Attributes:
        image_id: the picture's id; ``results.json`` says which file that is.
        category_id: the data set's id of the class, from the recipe.
        bbox: x, y, width and height in pixels of the picture.
        score: in (0, 1].
        segmentation: the mask at the picture's size, as RLE.
    """

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float
    segmentation: RLE


def coco_detections(
    instances: Instances, image_id: int, category_ids: Sequence[int]
) -> Iterator[Detection]:
    """Give the instances of one picture in COCO's form, by falling score.

    Numbers are the shortest decimals that read back as the same float32.
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
    """Count the instances of each class that occurs, by name, in the classes' order."""
    counts = np.bincount(instances.classes, minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def image_ids(files: Sequence[Path]) -> list[int]:
    """Choose an id for each picture of a run.

    Where every file's stem is a number and no two numbers are the same, the ids are those numbers,
    as in COCO, where ``000000000139.jpg`` is picture 139. Otherwise they are 1, 2, ... in the
    files' order.
    """
    stems = [file.stem for file in files]
    if all(stem.isascii() and stem.isdigit() and len(stem) <= _MOST_DIGITS for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(files) + 1))
