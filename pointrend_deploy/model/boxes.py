"""Boxes: (x1, y1, x2, y2) in pixels of the network input, corners at pixel edges.

Source: detectron2 structures/boxes.py and modeling/box_regression.py (Box2BoxTransform).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SCALE_CLAMP = math.log(1000.0 / 16)
"""Largest dw and dh: a box never grows by more than 1000 / 16."""


def area(boxes: Tensor) -> Tensor:
    """Area of (R, 4) boxes in square pixels: (R,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def clip(boxes: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) limited to a picture of that height and width."""
    height, width = image_hw
    x1, y1, x2, y2 = boxes.unbind(1)
    clipped = (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height))
    return torch.stack(clipped, dim=1)


def nonempty(boxes: Tensor) -> Tensor:
    """Which of (R, 4) boxes have width and height above 0: (R,) bool."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def scale(boxes: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) of a picture of one size in that picture at another, clipped to it."""
    scale_y, scale_x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    return clip(boxes * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y]), to_hw)


def pairwise_iou(boxes: Tensor) -> Tensor:
    """IoU of every two of (R, 4) boxes: (R, R). NaN, 0 / 0, where both are empty."""
    top_left = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    areas = area(boxes)
    return shared / (areas[:, None] + areas[None, :] - shared)


def apply_deltas(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes moved and resized by predicted deltas.

    Args:
        deltas: (R, K * 4), K boxes (dx, dy, dw, dh) for every given one; dx and dy are relative to
            its size, dw and dh logarithms of size ratios, clamped at :data:`SCALE_CLAMP`.
        boxes: (R, 4).
        weights: what the four deltas are divided by first.

    Returns:
        (R, K, 4).
    """
    size = (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1)
    centre = boxes[:, :2].unsqueeze(1) + 0.5 * size
    deltas = deltas.view(len(boxes), deltas.shape[1] // 4, 4) / deltas.new_tensor(weights)
    moved = deltas[..., :2] * size + centre
    half = 0.5 * (deltas[..., 2:].clamp(max=SCALE_CLAMP).exp() * size)
    return torch.cat((moved - half, moved + half), dim=2)
