"""Anchors of the region proposal network (detectron2 modeling/anchor_generator.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> list[list[float]]:
    """Anchors (x1, y1, x2, y2) about the origin: every size with every ratio, sizes outermost.

    Args:
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.
    """
    anchors = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            anchors.append([-width / 2.0, -height / 2.0, width / 2.0, height / 2.0])
    return anchors


def grid_anchors(
    sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    grid_hw: tuple[int, int],
    stride: int,
    offset: float,
    like: Tensor,
) -> Tensor:
    """The anchors of one level, at every cell of its grid.

    Args:
        sizes: as for :func:`cell_anchors`.
        aspect_ratios: as for :func:`cell_anchors`.
        grid_hw: height and width of the level's feature map.
        stride: pixels of the network input a cell.
        offset: of the first centre from the corner, in cells.
        like: gives dtype and device.

    Returns:
        (H * W * A, 4): row by row, and at each cell its A anchors.
    """
    height, width = grid_hw
    base = like.new_tensor(cell_anchors(sizes, aspect_ratios))
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + offset) * stride
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + offset) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((x, y, x, y), dim=2).view(-1, 1, 4)
    return (centres + base).reshape(-1, 4)
