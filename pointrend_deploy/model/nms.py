"""Non-maximum suppression, greedy by score, within groups (torchvision ops.batched_nms)."""

from __future__ import annotations

import torch
from torch import Tensor

from pointrend_deploy.model.boxes import pairwise_iou


def by_score(scores: Tensor) -> Tensor:
    """Indices of (R,) scores from the highest; equal ones keep their order."""
    return scores.sort(descending=True, stable=True).indices


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Drop every box that overlaps a kept, higher-scoring box of its group too much.

    Two boxes overlap too much when their IoU is strictly above the threshold. torchvision leaves
    the order of equal scores open in this function; here the lower index counts as the higher
    score.

    Args:
        boxes: (R, 4).
        scores: (R,).
        groups: (R,) int64; boxes of different groups never suppress one another.
        threshold: IoU.

    Returns:
        Indices of the kept boxes, by falling score: (K,) int64.
    """
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    order = by_score(scores)
    for group in torch.unique(groups):
        members = order[groups[order] == group]
        kept[members] = _kept_of_sorted(boxes[members], threshold)
    return order[kept[order]]


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
