"""Pictures and their true label maps, from two folders or from the Cityscapes layout.

Two folders: ``images/name.jpg`` belongs to ``labels/name.png``. Cityscapes: pictures end in
``_leftImg8bit.png``, label maps in ``_gtFine_labelTrainIds.png`` or ``_gtFine_labelIds.png``, at
any depth below the folders given (cityscapesScripts, helpers/labels.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.files import list_pictures, printable

Array = npt.NDArray[Any]
Coding = Literal["class ids", "cityscapes ids"]

CITYSCAPES_TRAIN_IDS: dict[int, int] = {
    original: train
    for train, original in enumerate(
        (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    )
}
"""Cityscapes label id -> train id (road 7 -> 0 ... bicycle 33 -> 18); every other id is ignored."""

_PICTURE, _TRAIN_IDS, _IDS = "_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"


@dataclass(frozen=True)
class Pair:
    """One picture and its label map, if it has one.

    Attributes:
        name: in reports.
        picture: the picture's file.
        labels: the label map's file, or None.
        coding: what the label map's pixel values mean.
    """

    name: str
    picture: Path
    labels: Path | None = None
    coding: Coding = "class ids"


def pairs(images: str | Path, labels: str | Path | None = None) -> list[Pair]:
    """List the pictures of a folder (or one file), with their label maps where these are given.

    Args:
        images: a picture, a folder of pictures, or a folder above Cityscapes pictures.
        labels: a label map, a folder of them, or a folder above Cityscapes label maps.

    Returns:
        Pairs in the order of their names. Label maps without a picture are ignored, so that a part
        of a data set can be compared.

    Raises:
        DeployError: there is no picture; two pictures or two label maps have the same name;
            pictures have no label map (the message names them).
    """
    root = Path(images)
    city = sorted(root.rglob(f"*{_PICTURE}.png")) if root.is_dir() else []
    pictures = city or list_pictures(root)
    names = [
        printable(path.stem.removesuffix(_PICTURE) if city else path.stem) for path in pictures
    ]
    if labels is None:  # names need not match label maps, so a suffix tells twins apart
        twins = {name for name in names if names.count(name) > 1}
        names = [
            printable(path.name) if name in twins else name
            for name, path in zip(names, pictures, strict=True)
        ]
        return [Pair(name, path) for name, path in zip(names, pictures, strict=True)]
    _refuse_twins(names, pictures, "pictures")
    maps = _label_maps(Path(labels), cityscapes=bool(city))
    if len(pictures) == 1 and Path(labels).is_file():
        maps = {names[0]: next(iter(maps.values()))}
    lacking = [name for name in names if name not in maps]
    if lacking:
        shown = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if lacking[5:] else "")
        raise DeployError(
            f"{len(lacking)} of {len(names)} pictures have no label map in {labels}: {shown}",
            "a label map is a PNG of the picture's name (or, for Cityscapes, "
            "*_gtFine_labelTrainIds.png or *_gtFine_labelIds.png)",
        )
    return [Pair(name, path, *maps[name]) for name, path in zip(names, pictures, strict=True)]


def read_labels(
    path: str | Path,
    num_classes: int,
    ignore_label: int = 255,
    coding: Coding = "class ids",
    expected_hw: tuple[int, int] | None = None,
) -> npt.NDArray[np.int32]:
    """Read a label map.

    Args:
        path: a PNG, grey (8 or 16 bits) or indexed: a pixel's value, or its index, is its class.
        num_classes: C; labels are 0 to C-1.
        ignore_label: the value of pixels that are not evaluated.
        coding: ``cityscapes ids`` are mapped to the 19 train ids, other ids to ``ignore_label``.
        expected_hw: the picture's height and width, to be checked; None for any size.

    Returns:
        (H, W) int32 labels.

    Raises:
        DeployError: the file cannot be read, is a JPEG or a colour picture, has another size, or
            has a label that is out of range.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            if image.format in ("JPEG", "MPO"):
                raise DeployError(
                    f"label map {path} is a JPEG, whose compression changes labels",
                    "write label maps as PNG from the start; what a JPEG has lost does not come "
                    "back when it is converted",
                )
            if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
                raise DeployError(
                    f"label map {path} is a colour picture ({image.mode}), not class ids",
                    "save it as a grey or indexed PNG whose values are the class ids",
                )
            values = np.asarray(image).astype(np.int32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DeployError(f"cannot read the label map {path}: {error}") from error
    if expected_hw is not None and values.shape != expected_hw:
        raise DeployError(
            f"label map {path} is {values.shape[0]}x{values.shape[1]}, "
            f"its picture {expected_hw[0]}x{expected_hw[1]}",
            "a label map has its picture's size (height x width, after EXIF rotation)",
        )
    if coding == "cityscapes ids":
        values = _to_train_ids(values, num_classes, ignore_label, path)
    outside = ((values < 0) | (values >= num_classes)) & (values != ignore_label)
    if outside.any():
        raise DeployError(
            f"label map {path} has label {int(values[outside][0])}; the classes are 0 to "
            f"{num_classes - 1}, and {ignore_label} is ignored",
            "labels are the recipe's class ids; map other ids first, or set "
            "classes.ignore_label in the recipe",
        )
    return values


def _label_maps(root: Path, cityscapes: bool) -> dict[str, tuple[Path, Coding]]:
    if cityscapes and root.is_dir():
        found: dict[str, tuple[Path, Coding]] = {}
        for path in sorted(root.rglob(f"*{_IDS}.png")):
            found[path.stem.removesuffix(_IDS)] = (path, "cityscapes ids")
        for path in sorted(root.rglob(f"*{_TRAIN_IDS}.png")):  # already mapped: preferred
            found[path.stem.removesuffix(_TRAIN_IDS)] = (path, "class ids")
        if found:
            return found
    files = list_pictures(root)
    stems = [path.stem.removesuffix(_PICTURE) for path in files]
    _refuse_twins(stems, files, "label maps")
    return {stem: (path, "class ids") for stem, path in zip(stems, files, strict=True)}


def _refuse_twins(names: list[str], paths: list[Path], what: str) -> None:
    seen: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        if name in seen:
            raise DeployError(
                f"two {what} are called {name}: {seen[name]} and {path}",
                "pictures and label maps find each other by name: rename one",
            )
        seen[name] = path


def _to_train_ids(
    values: npt.NDArray[np.int32], num_classes: int, ignore_label: int, path: Path
) -> npt.NDArray[np.int32]:
    if num_classes != len(CITYSCAPES_TRAIN_IDS):
        raise DeployError(
            f"label map {path} has Cityscapes ids, which mean 19 classes; "
            f"this recipe has {num_classes}",
            "give label maps of the recipe's own class ids",
        )
    if values.min() < 0 or values.max() > 255:
        raise DeployError(f"label map {path} has ids outside 0 to 255: no Cityscapes ids")
    table = np.full(256, ignore_label, dtype=np.int32)
    for original, train in CITYSCAPES_TRAIN_IDS.items():
        table[original] = train
    return table[values]
