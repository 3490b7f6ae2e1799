"""True objects of pictures, whatever file they come from, and the checks every source shares."""

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
from pointrend_deploy.recipe.instance import InstanceRecipe

HW = tuple[int, int]
Segmentation = list[list[float]] | dict[str, Any]
"""Polygons (x, y, x, y, ...), or a COCO run-length encoding {"size": [h, w], "counts": ...}."""
SHOWN = 5
"""Names an error message lists before it says how many more there are."""
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class TruthPicture:
    """A picture whose objects are known: its id in the truth, name, file, and upright size."""

    image_id: int
    name: str
    path: Path
    hw: HW


@dataclass(frozen=True)
class TruthObject:
    """One object.

    Attributes:
        image_id: of its picture.
        label: class of the recipe, 0..C-1.
        box: x, y, width, height in pixels.
        area: in pixels; decides whether it is small, medium or large.
        crowd: a region of many objects: detections in it count neither for nor against.
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

    ``classes_left_out`` are names of the recipe that the source does not know; its detections of
    them are not scored.
    """

    source: str
    pictures: tuple[TruthPicture, ...]
    objects: tuple[TruthObject, ...]
    classes_left_out: tuple[str, ...] = ()


def labels_of_categories(
    categories: Mapping[int, str], used: Iterable[int], recipe: InstanceRecipe, where: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Which class each category is: both the recipe's id and its name must agree.

    Args:
        categories: name by id, as the annotations list them.
        used: ids that have annotations.
        recipe: names and ``category_ids``.
        where: the file, for messages.

    Returns:
        Class by category id, and the names of classes the annotations do not list.

    Raises:
        DeployError: an id or a name that stands for something else on the other side, or objects
            of a category the model does not know.
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
    """The first few names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def upright_hw(path: Path) -> HW | None:
    """Height and width of a picture as it is read, EXIF rotation applied; None if unreadable."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
    except Exception:  # a broken picture is said when it is read, with its reason
        return None
    return (width, height) if turned else (height, width)


def check_pictures(pictures: Sequence[TruthPicture], root: Path, where: str) -> None:
    """Refuse annotations whose pictures are missing or of another size.

    Raises:
        DeployError: naming the first few.
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
    """Name and version of the evaluator.

    Raises:
        DeployError: it is not installed.
    """
    try:
        import faster_coco_eval  # noqa: F401  (asked for before hours of work, not after)
    except ImportError as error:
        raise DeployError(
            f"average precision needs faster-coco-eval, which cannot be imported: {error}",
            "pip install 'faster-coco-eval>=1.8'",
        ) from error
    return f"faster-coco-eval {version('faster-coco-eval')}"


def area_of(segmentation: Segmentation, hw: HW) -> float:
    """Pixels of a mask."""
    from faster_coco_eval.core import mask

    return float(mask.area(_run_lengths(segmentation, hw)))


def box_of(segmentation: Segmentation, hw: HW) -> tuple[float, float, float, float]:
    """The box around a mask: x, y, width, height."""
    from faster_coco_eval.core import mask

    x, y, width, height = (float(v) for v in mask.toBbox(_run_lengths(segmentation, hw)))
    return x, y, width, height


def mask_of(segmentation: Segmentation, hw: HW) -> npt.NDArray[np.bool_]:
    """The pixels of a mask: (H, W) bool."""
    from faster_coco_eval.core import mask

    return np.asarray(mask.decode(_run_lengths(segmentation, hw))).astype(np.bool_)


def _run_lengths(segmentation: Segmentation, hw: HW) -> dict[str, Any]:
    from faster_coco_eval.core import mask

    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        return segmentation
    found = mask.frPyObjects(segmentation, *hw)
    return dict(found if isinstance(segmentation, dict) else mask.merge(found))
