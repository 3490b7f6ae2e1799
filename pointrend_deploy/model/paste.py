"""From masks in boxes to masks in the picture (detectron2 layers/mask_ops.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pointrend_deploy.model.point_ops import point_sample

MASK_THRESHOLD = 0.5


def paste_masks(
    probabilities: Tensor, boxes: Tensor, image_hw: tuple[int, int], threshold: float
) -> Tensor:
    """Which pixels of the picture each mask covers.

    A mask is sampled bilinearly at the pixel centres, once, blending with zero outside its box; a
    pixel is covered where the sample is at least the threshold.

    Args:
        probabilities: (R, S, S) in [0, 1], each relative to its box.
        boxes: (R, 4) in pixels of the picture, not empty.
        image_hw: height and width of the picture.
        threshold: above 0 (nothing outside the boxes is looked at), at most 1.

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
