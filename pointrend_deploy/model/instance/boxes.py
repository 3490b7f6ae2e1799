"""Boxes: their arithmetic, non-maximum suppression, and masks pasted from boxes into the picture.

A box is (x1, y1, x2, y2) float32 in pixels of the network input, corners at pixel edges: x from 0
to W, y from 0 to H.

Sources: detectron2 structures/boxes.py, modeling/box_regression.py (Box2BoxTransform) and
layers/mask_ops.py (paste_masks_in_image); torchvision ops.batched_nms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pointrend_deploy.model.pointrend import point_sample

SCALE_CLAMP = math.log(1000.0 / 16)
"""Largest dw and dh: a box never grows by more than 1000 / 16."""
MASK_THRESHOLD = 0.5
"""Least probability of a pixel that a mask covers (detectron2's)."""


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
    """Move and resize boxes by predicted deltas.

    Args:
        deltas: (R, K * 4), K boxes (dx, dy, dw, dh) for every given one; dx and dy are relative to
            its size, dw and dh logarithms of size ratios, clamped at :data:`SCALE_CLAMP`.
        boxes: (R, 4).
        weights: divisors of the four deltas.

    Returns:
        (R, K, 4).
    """
    size = (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1)
    centre = boxes[:, :2].unsqueeze(1) + 0.5 * size
    deltas = deltas.view(len(boxes), deltas.shape[1] // 4, 4) / deltas.new_tensor(weights)
    moved = deltas[..., :2] * size + centre
    half = 0.5 * (deltas[..., 2:].clamp(max=SCALE_CLAMP).exp() * size)
    return torch.cat((moved - half, moved + half), dim=2)


def by_score(scores: Tensor) -> Tensor:
    """Indices of (R,) scores from the highest; equal ones keep their order."""
    return scores.sort(descending=True, stable=True).indices


def grouped_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, limit: int | None = None
) -> Tensor:
    """Suppress boxes: drop those that overlap a kept, higher-scoring box of their group too much.

    Two boxes overlap too much when their IoU is strictly above the threshold. torchvision leaves
    the order of equal scores open in this function; here the lower index counts as the higher
    score.

    Only higher-scoring boxes suppress a box. So where the best few boxes alone leave ``limit`` of
    them, the others are not looked at: with 1000 proposals of 1203 classes, nearly all.

    Args:
        boxes: (R, 4).
        scores: (R,).
        groups: (R,) int64; boxes of different groups never suppress one another.
        threshold: IoU.
        limit: most boxes kept, at least 1; None for all.

    Returns:
        Indices of the kept boxes, by falling score: (K,) int64.
    """
    order = by_score(scores)
    most = len(order) if limit is None else limit
    looked_at = 4 * most
    while True:
        best = order[:looked_at]
        kept = best[_kept_in_groups(boxes[best], groups[best], threshold)][:most]
        if len(kept) == most or looked_at >= len(order):
            return kept
        looked_at *= 4


def _kept_in_groups(boxes: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Which boxes (R, 4), sorted by falling score, a greedy pass within each group keeps: (R,)."""
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    by_group = groups.sort(stable=True)
    _, counts = torch.unique_consecutive(by_group.values, return_counts=True)
    for members in torch.split(by_group.indices, counts.tolist()):
        kept[members] = _kept_of_sorted(boxes[members], threshold)
    return kept


def _kept_of_sorted(boxes: Tensor, threshold: float) -> Tensor:
    """Which boxes (R, 4), sorted by falling score, a greedy pass keeps: (R,) bool.

    A box is kept when no kept box before it suppresses it. That rule has one solution; starting
    from "all kept" and applying it to all boxes at once settles box i after i rounds at the
    latest, and in practice after as many as the longest chain of suppressions.
    """
    suppresses = (pairwise_iou(boxes) > threshold).triu(diagonal=1)
    kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while True:
        again = ~(suppresses & kept[:, None]).any(dim=0)
        if torch.equal(again, kept):
            return kept
        kept = again


def paste_masks(
    probabilities: Tensor, boxes: Tensor, image_hw: tuple[int, int], threshold: float
) -> Tensor:
    """Paste masks into the picture: find the pixels that each mask covers.

    A mask is sampled bilinearly at the pixel centres, once, blending with zero outside its box; a
    pixel is covered where the sample is at least the threshold.

    Args:
        probabilities: (R, S, S) in [0, 1], each relative to its box.
        boxes: (R, 4) in pixels of the picture, not empty.
        image_hw: height and width of the picture.
        threshold: above 0 (pixels outside the boxes are never covered), at most 1.

    Returns:
        (R, H, W) bool.
    """
    height, width = image_hw
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    for mask, probability, box in zip(masks, probabilities, boxes, strict=True):
        x1, y1, x2, y2 = box.tolist()
        left, right = max(math.floor(x1) - 1, 0), min(math.ceil(x2) + 1, width)
        top, bottom = max(math.floor(y1) - 1, 0), min(math.ceil(y2) + 1, height)
        if left >= right or top >= bottom:
            continue
        x = torch.arange(left, right, dtype=box.dtype, device=box.device) + 0.5
        y = torch.arange(top, bottom, dtype=box.dtype, device=box.device) + 0.5
        x, y = (x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1])
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        points = torch.stack((columns, rows), dim=2).view(1, -1, 2)
        sampled = point_sample(probability[None, None], points).view(len(y), len(x))
        mask[top:bottom, left:right] = sampled >= threshold
    return masks
