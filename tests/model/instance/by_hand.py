"""Bilinear interpolation at one point, a cell at a time."""

from __future__ import annotations

import math
from collections.abc import Callable


def bilinear(cell: Callable[[int, int], float], y: float, x: float) -> float:
    """Blend the four cells around (y, x), in cells from the centre of the first.

    Args:
        cell: value at (row, column), which may lie outside the map.
        y: row.
        x: column.
    """
    top, left = math.floor(y), math.floor(x)
    dy, dx = y - top, x - left
    upper = cell(top, left) * (1 - dx) + cell(top, left + 1) * dx
    lower = cell(top + 1, left) * (1 - dx) + cell(top + 1, left + 1) * dx
    return upper * (1 - dy) + lower * dy
