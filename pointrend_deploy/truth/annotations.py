"""The true objects of pictures, from any kind of file, and the checks that all kinds share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import require
from pointrend_deploy.recipe.instance import InstanceRecipe

HW = tuple[int, int]
Segmentation = list[list[float]] | dict[str, Any]
"""Polygons (x, y, x, y, ...), or a COCO run-length encoding {"size": [h, w], "counts": ...}."""
SHOWN = 5
"""Number of names that an error message lists; for the rest it says how many more there are."""
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class TruthPicture:
    """A picture whose objects are known.

    Attributes:
        image_id: in the truth.
        name: in reports.
        path: its file.
        hw: height and width in pixels, with the EXIF rotation applied.
    """

    image_id: int
    name: str
    path: Path
    hw: HW


@dataclass(frozen=True)
class TruthObject:
    """One object.

    Attributes:
        image_id: the picture it is in.
        label: its class in the recipe, 0..C-1.
        box: x, y, width, height in pixels.
        area: in pixels; decides whether it is small, medium or large.
        crowd: True for a region of many objects: detections inside it are neither right nor wrong.
        segmentation: its mask.
    """

    image_id: int
    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    segmentation: Segmentation


@dataclass(frozen=True)
class InstanceTruth:
    """Checked pictures and objects.

    Attributes:
        source: name of the file or folder.
        pictures: in the order of the source.
        objects: of all pictures.
        classes_left_out: names of the recipe's classes that the source does not list; detections
            of these classes are not scored.
        notes: a line for all that is suspicious.
    """

    source: str
    pictures: tuple[TruthPicture, ...]
    objects: tuple[TruthObject, ...]
    classes_left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def objects_by_picture(self) -> dict[int, tuple[TruthObject, ...]]:
        """Return the objects of every picture, by its ``image_id``; pictures may have none."""
        found: dict[int, list[TruthObject]] = {each.image_id: [] for each in self.pictures}
        for each in self.objects:
            found[each.image_id].append(each)
        return {image_id: tuple(objects) for image_id, objects in found.items()}


def labels_of_categories(
    categories: Mapping[int, str], used: Iterable[int], recipe: InstanceRecipe, where: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Find the class of each category; both its id and its name must be those of the recipe.

    Args:
        categories: the annotations' category names, by id.
        used: ids of the categories that have annotations.
        recipe: has the classes' names and ``category_ids``.
        where: the file, for messages.

    Returns:
        The class (0..C-1) by category id, and the names of classes the annotations do not list.

    Raises:
        DeployError: an id or a name means something else in the recipe, or there are objects of a
            category that the model does not know.
    """
    ids = {_plain(name): number for number, name in categories.items()}
    labels: dict[int, int] = {}
    left_out = []
    for label, (number, name) in enumerate(
        zip(recipe.category_ids, recipe.classes.names, strict=True)
    ):
        theirs = categories.get(number)
        if theirs is not None and _plain(theirs) == _plain(name):
            labels[number] = label
        elif _plain(name) in ids:
            raise _mismatch(
                f"{where}: {name!r} has category id {ids[_plain(name)]}, in the recipe "
                f"{recipe.name} it has {number}"
            )
        elif theirs is not None:
            raise _mismatch(
                f"{where}: category {number} is {theirs!r}, in the recipe {recipe.name} it is "
                f"{name!r}"
            )
        else:
            left_out.append(name)
    strange = sorted(set(used) - set(labels))
    if strange:
        raise _mismatch(
            f"{where} has objects of {listed([repr(categories[number]) for number in strange])}, "
            f"which {recipe.name} does not know: its classes are {listed(recipe.classes.names)}"
        )
    return labels, tuple(left_out)


def _mismatch(message: str) -> DeployError:
    return DeployError(
        message,
        "the annotations must be of the data set the model was trained for; `classes.names` and "
        "`classes.category_ids` of the recipe say which",
    )


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def listed(names: Sequence[object]) -> str:
    """Return the first few names with commas, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def upright_hw(path: Path) -> HW | None:
    """Return a picture's height and width after its EXIF rotation; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
    except Exception:  # a broken picture is reported when it is compared, with the reason
        return None
    return (width, height) if turned else (height, width)


def check_pictures(pictures: Sequence[TruthPicture], root: Path, where: str) -> None:
    """Check that all annotated pictures are there and have the annotated size.

    Args:
        pictures: of the annotations.
        root: the folder their names start from, for messages.
        where: the annotations, for messages.

    Raises:
        DeployError: some are missing or of another size; the message names the first few.
    """
    missing = [picture.name for picture in pictures if not picture.path.is_file()]
    if missing:
        raise DeployError(
            f"{len(missing)} of {len(pictures)} pictures of {where} are not in {root}: "
            f"{listed(missing)}",
            "give the folder their names start from; to score a part of the set, give annotations "
            "of that part only (a picture left out of `images`, and its annotations)",
        )
    wrong = []
    for picture in pictures:
        found = upright_hw(picture.path)
        if found is not None and found != picture.hw:
            wrong.append(
                f"{picture.name} is {_size(found)}, its annotations say {_size(picture.hw)}"
            )
    if wrong:
        raise DeployError(
            f"{len(wrong)} pictures have another size than in {where}: {listed(wrong)}",
            "sizes are height x width of the upright picture: where the two are exchanged, the "
            "annotations were drawn on a picture whose EXIF rotation was not applied; give the "
            "pictures that were annotated",
        )


def _size(hw: HW) -> str:
    return f"{hw[0]}x{hw[1]}"


def need_evaluator() -> str:
    """Return the name and version of the evaluator of average precision.

    Raises:
        DeployError: it is not installed.
    """
    require("average precision")  # before hours of work, not after
    return f"faster-coco-eval {version('faster-coco-eval')}"


def area_of(segmentation: Segmentation, hw: HW) -> float:
    """Return the number of pixels of a mask in a picture of size ``hw``."""
    from faster_coco_eval.core import mask

    return float(mask.area(_run_lengths(segmentation, hw)))


def box_of(segmentation: Segmentation, hw: HW) -> tuple[float, float, float, float]:
    """Return the box around a mask: x, y, width, height in pixels."""
    from faster_coco_eval.core import mask

    x, y, width, height = (float(v) for v in mask.toBbox(_run_lengths(segmentation, hw)))
    return x, y, width, height


def mask_of(segmentation: Segmentation, hw: HW) -> npt.NDArray[np.bool_]:
    """Return a mask as (H, W) bool."""
    from faster_coco_eval.core import mask

    return np.asarray(mask.decode(_run_lengths(segmentation, hw))).astype(np.bool_)


def _run_lengths(segmentation: Segmentation, hw: HW) -> dict[str, Any]:
    from faster_coco_eval.core import mask

    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        return segmentation
    found = mask.frPyObjects(segmentation, *hw)
    return dict(found if isinstance(segmentation, dict) else mask.merge(found))
