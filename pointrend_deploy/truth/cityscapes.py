"""Cityscapes instance folders as true objects (cityscapesScripts, helpers/labels.py).

In ``*_gtFine_instanceIds.png`` a pixel of an object has the value 1000 * class id + number; any
other pixel has its class id alone. A class that has objects but stands without a number is a group
whose members were not annotated one by one; groups become COCO's crowd regions. The scores are
COCO-style AP. They are not cityscapesScripts' own metric, which also ignores detections in void
regions and leaves out objects below 100 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.files import printable
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.run.instance.masks import encode
from pointrend_deploy.truth.annotations import (
    InstanceTruth,
    TruthObject,
    TruthPicture,
    check_pictures,
    listed,
)
from pointrend_deploy.truth.objects import set_notes

THINGS: dict[str, int] = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""Cityscapes' class ids, by name, of the classes whose objects it evaluates."""

_PICTURE, _IDS = "_leftImg8bit", "_gtFine_instanceIds"


def read_cityscapes(
    labels: str | Path, images: str | Path, recipe: InstanceRecipe
) -> InstanceTruth:
    """Read the objects of every picture below ``images``.

    Args:
        labels: a folder above ``*_gtFine_instanceIds.png``, such as gtFine/val.
        images: a folder above ``*_leftImg8bit.png``. Label maps without a picture are ignored, so
            that a part of the set can be compared.
        recipe: its classes must be among the names of :data:`THINGS`.

    Raises:
        DeployError: a class is not among them; there is no picture; pictures have no label map; a
            label map cannot be read, has another size, or is not a map of instance ids; there is
            no object, or every one is a group.
    """
    strange = [name for name in recipe.classes.names if name not in THINGS]
    if strange:
        raise DeployError(
            "--labels of an instance model is a folder of Cityscapes' instance ids, and "
            f"{recipe.name} finds {listed(strange)}, which Cityscapes does not annotate as things",
            f"its things are {', '.join(THINGS)}; give COCO annotations with --coco for others",
        )
    root, folder = Path(images), Path(labels)
    maps = {path.stem.removesuffix(_IDS): path for path in sorted(folder.rglob(f"*{_IDS}.png"))}
    if not maps:
        raise DeployError(
            f"no *{_IDS}.png in {folder}",
            "an instance bundle's truth is a Cityscapes gtFine folder with --labels, or a COCO "
            "annotation file with --coco",
        )
    found = sorted(root.rglob(f"*{_PICTURE}.png"))
    if not found:
        raise DeployError(
            f"no *{_PICTURE}.png in {root}", "give a folder of leftImg8bit with --images"
        )
    stems = [path.stem.removesuffix(_PICTURE) for path in found]
    lacking = [stem for stem in stems if stem not in maps]
    if lacking:
        raise DeployError(
            f"{len(lacking)} of {len(stems)} pictures have no *{_IDS}.png in {folder}: "
            f"{listed(lacking)}",
            "Cityscapes' test set has no annotations; give leftImg8bit/val and gtFine/val",
        )
    pictures: list[TruthPicture] = []
    objects: list[TruthObject] = []
    for number, (stem, path) in enumerate(zip(stems, found, strict=True), 1):
        values = _read(maps[stem])
        hw = (values.shape[0], values.shape[1])
        pictures.append(TruthPicture(number, printable(stem), path, hw))
        objects += _objects(values, number, recipe)
    check_pictures(pictures, root, str(folder))
    if not objects:
        raise DeployError(
            f"no pixel of the label maps in {folder} is a thing: there is nothing to score against",
            "Cityscapes' test set ships label maps without objects; give gtFine/val",
        )
    notes = set_notes(pictures, objects, recipe, (), str(folder))
    return InstanceTruth(folder.name, tuple(pictures), tuple(objects), notes=notes)


def _read(path: Path) -> npt.NDArray[np.int32]:
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "I", "I;16", "I;16B", "I;16L"):
                raise DeployError(
                    f"{path} is not a map of instance ids: its pixels are of type {image.mode}",
                    f"*{_IDS}.png is a grey PNG of 16 bits",
                )
            return np.asarray(image).astype(np.int32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DeployError(
            f"cannot read the label map {path}: {error}", "copy or download it again"
        ) from error


def _objects(
    values: npt.NDArray[np.int32], image_id: int, recipe: InstanceRecipe
) -> Iterator[TruthObject]:
    labels = {THINGS[name]: label for label, name in enumerate(recipe.classes.names)}
    for value in np.unique(values).tolist():
        number = value // 1000 if value >= 1000 else value
        if number not in labels:
            continue
        mask = values == value
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
        patch = mask[top : top + height, left : left + width]
        yield TruthObject(
            image_id=image_id,
            label=labels[number],
            box=(float(left), float(top), float(width), float(height)),
            area=float(patch.sum()),
            crowd=value < 1000,
            segmentation=dict(encode((top, left, patch), (values.shape[0], values.shape[1]))),
        )
