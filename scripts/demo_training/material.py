"""Photographs and cut-out objects that scenes are made of, in three splits that share nothing.

The model learns from ``train`` and is validated on ``val`` while it trains; the published figures
are measured on ``test``. Photographs are split by name, objects by their code point.
See ``scripts/fetch_demo_material.sh`` for where both come from.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointrend_deploy.errors import DeployError

Split = Literal["train", "val", "test"]

PHOTOS: Final[dict[str, Split]] = {
    "aitzgorri_by_Aitzol_Berasategi.jpg": "train",
    "friends_by_Aitzol_Berasategi.jpg": "train",
    "life_by_Aitzol_Berasategi.jpg": "train",
    "Picture_0B_by_freespace.jpg": "train",
    "seeding_by_Clements_Engelhardt.jpg": "train",
    "flower.jpg": "train",
    "chelsea.png": "train",
    "coffee.png": "train",
    "rocket.jpg": "train",
    "grass.png": "train",
    "gravel.png": "train",
    "brick.png": "train",
    "camera.png": "train",
    "clock_motion.png": "train",
    "coins.png": "train",
    "hubble_deep_field.jpg": "train",
    "ihc.png": "train",
    "retina.jpg": "train",
    "china.jpg": "val",
    "Picture_1A_by_freespace.jpg": "val",
    "astronaut.png": "test",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg": "test",
    "sunset_by_Aitzol_Berasategi.jpg": "test",
    "umang_by_Abhishek_Mudgal.jpg": "test",
    "Wine_by_Jakkub_Mede.jpg": "test",
}
"""File name -> split."""

_LONGEST_PHOTO_SIDE: Final = 1200
_SKIN_TONES: Final = frozenset(f"1f3f{digit}" for digit in "bcdef")


def _codes(*ranges: str) -> frozenset[str]:
    """Code points in hexadecimal, from ``"1f400-1f43c"`` or ``"1f577"``."""
    found: set[str] = set()
    for text in ranges:
        first, _, last = text.partition("-")
        found.update(f"{code:x}" for code in range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(found)


OBJECTS: Final[dict[str, frozenset[str]]] = {
    "hand": _codes(
        "1f446-1f44f", "1f450", "1f58f-1f590", "1f596", "1f90c", "1f90f", "1f918-1f91c",
        "1f91e-1f91f", "1f932", "1f64f", "1faf0-1faf8", "261d", "270a-270c",
    ),
    # Animals, plants, food, clothes, instruments, tools, vehicles.
    "object": _codes(
        "1f32d-1f335", "1f337-1f37f", "1f380-1f393", "1f3b7-1f3bb", "1f3bd-1f3c0", "1f3c6",
        "1f3c8-1f3c9", "1f3cf-1f3d3", "1f3f8-1f3fa", "1f400-1f43c", "1f43f", "1f451-1f45f",
        "1f460-1f462", "1f484", "1f488-1f48a", "1f490", "1f4a1", "1f4a3", "1f4b0", "1f4ba-1f4be",
        "1f4d4-1f4da", "1f4de-1f4e0", "1f4e6", "1f4ef", "1f4f7-1f4fd", "1f50b-1f50e", "1f525-1f52c",
        "1f54a", "1f577", "1f680-1f684", "1f686", "1f68b-1f68c", "1f691-1f6a4", "1f6b2", "1f6e5",
        "1f6e9", "1f6f4-1f6fc", "1f940", "1f941-1f944", "1f94a-1f94f", "1f950-1f96f",
        "1f97b-1f97f", "1f980-1f99f", "1f9a1-1f9ae", "1f9c0-1f9c6", "1f9c8", "1f9e2-1f9e6", "1f9ea",
        "1f9ef-1f9f0", "1f9f2", "1f9f4", "1f9f6-1f9fa", "1f9fc-1f9fd", "1fa70-1fa74", "1fa80-1fa87",
        "1fa91-1fa9c", "1fab0-1fab5", "1fab7", "1fabb-1fabc", "1fabf", "1face-1facf",
        "1fad0-1fadb", "2618",
    ),
}  # fmt: skip
"""Class name -> Unicode code points of the objects that belong to it."""


@dataclass(frozen=True)
class Material:
    """What scenes are composed from.

    Attributes:
        photos: H x W x 3 uint8 RGB, both sides at least 64.
        objects: class name -> cut-outs, H x W x 4 uint8 RGB and straight alpha.
    """

    photos: tuple[NDArray[np.uint8], ...]
    objects: dict[str, tuple[NDArray[np.uint8], ...]]


def object_split(code: str) -> Split:
    """Split of an object by its first code point: a fifth is ``test``, a tenth ``val``."""
    bucket = zlib.crc32(code.encode()) % 10
    return "test" if bucket < 2 else "val" if bucket == 2 else "train"


def load_material(photos: Path, objects: Path, split: Split) -> Material:
    """Read one split.

    Args:
        photos: folder with the files named in :data:`PHOTOS`.
        objects: folder of ``<code>[-<skin tone>].webp`` cut-outs.
        split: which of the three.

    Raises:
        DeployError: a photograph is missing, or a class has no object.
    """
    pictures = []
    for name in sorted(name for name, where in PHOTOS.items() if where == split):
        if not (photos / name).is_file():
            raise DeployError(
                f"the photograph {photos / name} is missing",
                "scripts/fetch_demo_material.sh fetches all of them",
            )
        pictures.append(_read_photo(photos / name))
    cutouts: dict[str, tuple[NDArray[np.uint8], ...]] = {}
    for group, codes in OBJECTS.items():
        files = [
            path
            for path in sorted(objects.glob("*.webp"))
            if (code := _base_code(path.stem)) in codes and object_split(code) == split
        ]
        if not files:
            raise DeployError(
                f"no {split} object of class {group} in {objects}",
                "scripts/fetch_demo_material.sh fetches all of them",
            )
        cutouts[group] = tuple(_trimmed(path) for path in files)
    return Material(tuple(pictures), cutouts)


def _base_code(stem: str) -> str:
    """First code point of a file name; empty for joined sequences, which mix two groups."""
    first, *rest = stem.split("-")
    return first if all(part in _SKIN_TONES or part == "fe0f" for part in rest) else ""


def _read_photo(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGB"))
    shrink = _LONGEST_PHOTO_SIDE / max(rgb.shape[:2])
    if shrink < 1.0:
        rgb = cv2.resize(rgb, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.asarray(rgb, np.uint8)


def _trimmed(path: Path) -> NDArray[np.uint8]:
    """The cut-out without its empty margin."""
    with Image.open(path) as image:
        rgba = np.asarray(image.convert("RGBA"))
    rows = np.flatnonzero((rgba[..., 3] > 8).any(axis=1))
    columns = np.flatnonzero((rgba[..., 3] > 8).any(axis=0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
