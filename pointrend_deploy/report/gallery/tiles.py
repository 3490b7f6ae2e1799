"""Tiles: the small pictures of a report's gallery."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]
HW = tuple[int, int]

TILE_SIDE = 400
"""Longest side of a tile in pixels."""
DOT = (255, 214, 10)
"""Colour of a point, RGB."""
GALLERY_PICTURES = 6
"""Number of pictures that a comparison draws for its report: its worst ones."""


@dataclass(frozen=True)
class Tile:
    """One small picture.

    Attributes:
        label: what it shows.
        uri: its bytes as a data URI.
        width, height: in pixels.
    """

    label: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class GalleryItem:
    """The tiles of one picture.

    Attributes:
        name: of the picture.
        tiles: in the order they are shown in.
        legend: the classes that occur in them, as (name, CSS colour).
        caption: a sentence below the tiles; may be empty.
        zooms: one part of the picture, enlarged: the same answers again, close up.
        points: the points chosen at each subdivision step, one tile a step.
    """

    name: str
    tiles: tuple[Tile, ...]
    legend: tuple[tuple[str, str], ...]
    caption: str = ""
    zooms: tuple[Tile, ...] = ()
    points: tuple[Tile, ...] = ()


class Gallery(Protocol):
    """Draws the worst pictures of a comparison."""

    @property
    def items(self) -> list[GalleryItem]:
        """The pictures drawn, the worst first."""

    def __call__(self, seen: Any) -> None:
        """Take both sides' answers for one picture; it is drawn if it is among the worst so far."""


class Worst:
    """Keeps the worst pictures of many; of two that are equally bad the earlier one is worse.

    Args:
        limit: number of pictures to keep.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[tuple[tuple[float, ...], GalleryItem]] = []

    @property
    def items(self) -> list[GalleryItem]:
        """The pictures kept, the worst first."""
        return [item for _, item in self._kept]

    def wants(self, badness: tuple[float, ...]) -> bool:
        """Return whether a picture as bad as this would be kept."""
        return len(self._kept) < self._limit or badness > self._kept[-1][0]

    def keep(self, badness: tuple[float, ...], item: GalleryItem) -> None:
        """Keep a picture, and drop the least bad one if there are now too many."""
        self._kept.append((badness, item))
        self._kept.sort(key=lambda each: each[0], reverse=True)  # stable, so the earlier first
        del self._kept[self._limit :]


def small_hw(hw: HW, grow: bool = False) -> HW:
    """Return height and width of the tile of a picture of size ``hw``.

    Args:
        hw: height and width of the picture.
        grow: whether a picture smaller than :data:`TILE_SIDE` is enlarged.
    """
    scale = TILE_SIDE / max(hw) if grow else min(1.0, TILE_SIDE / max(hw))
    return max(1, round(hw[0] * scale)), max(1, round(hw[1] * scale))


def dotted(base: UInt8, where: Array) -> UInt8:
    """Return a picture, darkened, with dots.

    Args:
        base: (H, W, 3) uint8 RGB.
        where: (M, 2) x, y of the dots in pixels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    grey = (base.mean(axis=2, keepdims=True) * 0.45).astype(np.uint8)
    image = Image.fromarray(np.repeat(grey, 3, axis=2))
    draw = ImageDraw.Draw(image)
    half = 1 if len(where) < 1500 else 0
    for x, y in where.astype(int).tolist():
        draw.rectangle((x, y, x + half, y + half), fill=DOT)
    return np.asarray(image)


def make_tile(label: str, rgb: UInt8, exact: bool = False) -> Tile:
    """Make a tile of its label and its pixels, (H, W, 3) uint8 RGB.

    Args:
        label: what it shows.
        rgb: its pixels.
        exact: whether every pixel keeps its value (PNG); otherwise it is a JPEG.
    """
    buffer = io.BytesIO()
    if exact:
        Image.fromarray(rgb).save(buffer, "PNG", optimize=True)
    else:
        Image.fromarray(rgb).save(buffer, "JPEG", quality=86, subsampling=0)
    kind = "png" if exact else "jpeg"
    uri = f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
    return Tile(label, uri, rgb.shape[1], rgb.shape[0])
