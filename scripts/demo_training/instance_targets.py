"""Targets of the instance training: what each anchor, proposal and mask should predict.

Source: Ren et al. 2015, section 3.1.2 (matching and sampling), Girshick 2015 (box targets), He et
al. 2017 (mask targets); detectron2 modeling/matcher.py, sampling.py, box_regression.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.model.instance.boxes import area
from pointrend_deploy.model.pointrend import point_sample, regular_grid

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1
_SAMPLES_A_CELL = 3


class Matches(NamedTuple):
    """For each of P boxes: the instance that it overlaps most, and whether it is a positive one.

    Attributes:
        instance: (P,) int64; 0 where a picture has no instance.
        label: (P,) int64, POSITIVE, NEGATIVE or NEITHER.
    """

    instance: Tensor
    label: Tensor


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of (G, 4) and (P, 4) boxes: (G, P), 0 where they do not meet."""
    top_left = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    union = area(boxes)[:, None] + area(others)[None, :] - shared
    return torch.where(shared > 0, shared / union, 0.0)


def match(iou: Tensor, below: float, above: float, *, best_too: bool) -> Matches:
    """Match P boxes with G instances.

    Args:
        iou: (G, P).
        below: a box whose best IoU lies under this is negative.
        above: one whose best IoU reaches this is positive; what lies between is neither.
        best_too: the boxes that overlap an instance most are positive whatever their IoU, as the
            region proposal network wants it; each still counts for the instance it overlaps most.
    """
    if iou.shape[0] == 0:
        none = torch.zeros(iou.shape[1], dtype=torch.int64)
        return Matches(none, torch.full_like(none, NEGATIVE))
    best, instance = iou.max(dim=0)
    label = torch.full_like(instance, NEITHER)
    label[best < below] = NEGATIVE
    label[best >= above] = POSITIVE
    if best_too:
        highest = iou.max(dim=1, keepdim=True).values
        label[((iou == highest) & (highest > 0)).any(dim=0)] = POSITIVE
    return Matches(instance, label)


def sample(label: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Choose at random among positive and negative boxes.

    Args:
        label: (P,) of :class:`Matches`.
        count: how many in all, where there are as many.
        share: largest share of positives.

    Returns:
        Indices of the positives and of the negatives, each int64.
    """
    positive, negative = (label == POSITIVE).nonzero()[:, 0], (label == NEGATIVE).nonzero()[:, 0]
    chosen = positive[torch.randperm(len(positive))[: int(count * share)]]
    return chosen, negative[torch.randperm(len(negative))[: count - len(chosen)]]


def deltas_to(boxes: Tensor, wanted: Tensor, weights: Sequence[float]) -> Tensor:
    """The deltas (R, 4) with which ``apply_deltas`` turns ``boxes`` into ``wanted``.

    Args:
        boxes: (R, 4), not empty.
        wanted: (R, 4), not empty.
        weights: the divisors of the predicted deltas.
    """
    size, wanted_size = boxes[:, 2:] - boxes[:, :2], wanted[:, 2:] - wanted[:, :2]
    move = (wanted[:, :2] + 0.5 * wanted_size - boxes[:, :2] - 0.5 * size) / size
    return torch.cat((move, (wanted_size / size).log()), dim=1) * boxes.new_tensor(weights)


def masks_at(owner: Tensor, instances: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
    """Masks of instances read bilinearly at points given relative to boxes.

    Args:
        owner: (H, W) uint8, as in Targets.
        instances: (R,) int64.
        boxes: (R, 4) in pixels.
        points: (R, P, 2), (x, y) in [0, 1] of the box.

    Returns:
        (R, P) float32 in [0, 1].
    """
    masks = (owner[None] == (instances + 1)[:, None, None]).float()[:, None]
    in_picture = points * (boxes[:, None, 2:] - boxes[:, None, :2]) + boxes[:, None, :2]
    height, width = owner.shape
    return point_sample(masks, in_picture / in_picture.new_tensor([width, height]))[:, 0]


def mask_targets(owner: Tensor, instances: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Masks of instances resized to side x side cells of boxes: (R, side, side), 0.0 or 1.0.

    A cell is 1 where at least half of its 3 x 3 samples' mean is covered.
    """
    fine = side * _SAMPLES_A_CELL
    dense = masks_at(owner, instances, boxes, regular_grid(boxes, fine))
    mean = F.avg_pool2d(dense.view(-1, 1, fine, fine), _SAMPLES_A_CELL)[:, 0]
    return (mean >= 0.5).float()
