"""Bilinear sampling written out in standard ops, for points that are rows.

The function is PointRendSample's: cell centres at (i + 0.5) / size, zeros outside. ONNX Runtime's
GridSample walks every channel's plane over all points, a value at a time; rows of a (cells,
channels) table are copied whole, and weighted by one small product a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

GATHERED_FROM: Final = 32
"""RoIs from which rows are gathered: the table is a copy of the map, too much memory for fewer."""


def pays(rois: int, feature_hw: Sequence[tuple[int, int]]) -> bool:
    """Whether a graph without plugins gathers rows for that many RoIs on maps of these sizes."""
    return rois >= GATHERED_FROM and min(map(min, feature_hw)) > 1


def hats(position: Tensor, size: int) -> Tensor:
    """Linear weights of all cells of an axis at positions in [0, 1] of it: (R, P) -> (R, size, P).

    The hat function of a cell is 1 at its centre and 0 a cell away, so beyond the outer centres
    the weights sum to less than 1: what is outside counts as zero.
    """
    cells = torch.arange(size, device=position.device).to(position.dtype).unsqueeze(1)
    return F.relu(1.0 - (position.unsqueeze(1) * size - 0.5 - cells).abs())


def neighbours(x: Tensor, y: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four cells around points of a map, and their weights.

    Args:
        x: (R, P), in cells: 0 is the first column's left edge.
        y: likewise.
        height: of the map, at least 2.
        width: of the map, at least 2.

    Returns:
        Flat indices (R, P, 4) int64, always cells of the map, and weights (R, P, 1, 4): 0 where
        the neighbour the point would have had lies outside.
    """
    left, across = _pair(x, width)
    top, down = _pair(y, height)
    first = top * width + left
    cells = torch.stack((first, first + 1, first + width, first + (width + 1)), dim=-1)
    weights = torch.stack([v * h for v in down for h in across], dim=-1)
    return cells, weights.unsqueeze(2)


def _pair(position: Tensor, size: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The first of two neighbouring cells of an axis, and the hat functions of both.

    Off the map the pair is the outermost one: one hat is cut by the border, the other is 0.
    """
    centred = position - 0.5
    first = centred.clamp(0.0, float(size - 2)).to(torch.int64)
    offset = centred - first.to(position.dtype)
    return first, (F.relu(1.0 - offset.abs()), F.relu(1.0 - (offset - 1.0).abs()))


def gather(table: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """Weighted rows of a table: (cells, C) at :func:`neighbours` -> (R * P, C)."""
    rows = F.embedding(cells, table)
    return (weights @ rows).flatten(0, 2)
