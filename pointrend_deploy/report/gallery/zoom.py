"""The part of a picture where two answers differ most, enlarged until single pixels show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pointrend_deploy.parity.scores.boundary import inner_bands
from pointrend_deploy.report.gallery.tiles import HW, Array, Tile, UInt8, make_tile

ZOOM_SIDE = 40
"""Side of the part, in pixels of the network's input."""
LEAST_ENLARGED = 4
"""By how much the part is enlarged at least."""
ZOOM_TILE = 360
"""Side in pixels that an enlarged part does not exceed, unless it is enlarged least."""
NEAR = 3
"""Number of pixels beside an outline that count as near it."""
FRAME = (255, 255, 255)


@dataclass(frozen=True)
class Window:
    """A part of a picture: rows ``top`` to ``top + height``, columns ``left`` to ``left + width``.

    All are pixels of the picture.
    """

    top: int
    left: int
    height: int
    width: int

    def of(self, values: Array) -> Array:
        """Return this part of an array (H, W, ...)."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]


def window_of(one: Array, other: Array, fitted_hw: HW | None = None) -> Window | None:
    """Return the square window with the most pixels where two answers differ near an outline.

    Args:
        one: (H, W) whole numbers from 0 to 32766 at the picture's size.
        other: the same, of the other answer. Outlines are those of this one; where the answers
            differ far from them only, all pixels count.
        fitted_hw: the picture's size on the network's canvas, which scales the window;
            None where it is the picture's own.

    Returns:
        Of the best windows the one in their middle; None where nothing differs.
    """
    differs = one != other
    if not differs.any():
        return None
    near = differs & inner_bands(other, NEAR)
    differs = near if near.any() else differs
    height, width = differs.shape
    scale = 1.0 if fitted_hw is None else max(1.0, max(height, width) / max(fitted_hw))
    side = round(ZOOM_SIDE * scale)
    tall, wide = min(side, height), min(side, width)
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = differs.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    inside = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    best = np.argwhere(inside == inside.max())
    middle = best[((best - best.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return Window(int(middle[0]), int(middle[1]), tall, wide)


def enlarged(label: str, part: UInt8) -> Tile:
    """Make the tile of a part, (h, w, 3) uint8 RGB: each pixel becomes a square of one colour."""
    times = max(LEAST_ENLARGED, ZOOM_TILE // max(part.shape[:2]))
    pixels = np.repeat(np.repeat(part, times, axis=0), times, axis=1)
    return make_tile(label, pixels, exact=True)


def framed(base: UInt8, window: Window, picture_hw: HW) -> UInt8:
    """Return a tile (h, w, 3) of a picture of size ``picture_hw`` with the window's outline."""
    down, across = base.shape[0] / picture_hw[0], base.shape[1] / picture_hw[1]
    corners = (
        round(window.left * across),
        round(window.top * down),
        round((window.left + window.width) * across) - 1,
        round((window.top + window.height) * down) - 1,
    )
    if corners[2] <= corners[0] or corners[3] <= corners[1]:
        return base
    image = Image.fromarray(base)
    draw = ImageDraw.Draw(image)
    x1, y1, x2, y2 = corners
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0))
    draw.rectangle(corners, outline=FRAME)
    return np.asarray(image)
