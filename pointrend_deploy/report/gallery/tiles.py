"""DOCSTRING."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]
HW = tuple[int, int]

TILE_SIDE = 400
"""Longest side of a tile in pixels."""
DOT = (255, 214, 10)


@dataclass(frozen=True)
class Tile:
    """One small picture: what it shows, and its bytes as a data URI."""

    label: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class GalleryItem:
    """The tiles of one picture and the classes that occur in them, as (name, CSS colour)."""

    name: str
    tiles: tuple[Tile, ...]
    legend: tuple[tuple[str, str], ...]
    caption: str = ""


def small_hw(hw: HW, grow: bool = False) -> HW:
    """The size of a picture's tile; a picture smaller than that only grows where asked."""
    scale = TILE_SIDE / max(hw) if grow else min(1.0, TILE_SIDE / max(hw))
    return max(1, round(hw[0] * scale)), max(1, round(hw[1] * scale))


def dotted(base: UInt8, where: Array) -> UInt8:
    """A tile (H, W, 3), darkened, with dots at (M, 2) x, y in its pixels."""
    grey = (base.mean(axis=2, keepdims=True) * 0.45).astype(np.uint8)
    image = Image.fromarray(np.repeat(grey, 3, axis=2))
    draw = ImageDraw.Draw(image)
    half = 1 if len(where) < 1500 else 0
    for x, y in where.astype(int).tolist():
        draw.rectangle((x, y, x + half, y + half), fill=DOT)
    return np.asarray(image)


def make_tile(label: str, rgb: UInt8) -> Tile:
    """A tile from its pixels, (H, W, 3) uint8 RGB."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=88, subsampling=0)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Tile(label, uri, rgb.shape[1], rgb.shape[0])
