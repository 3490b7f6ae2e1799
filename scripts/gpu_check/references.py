"""Reference results for the kernels: float64 for sums, exact sets and orders for selections.

Every comparison returns a text that says what is wrong; it is empty where nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointrend_deploy.graph.ops import sample_cells
from pointrend_deploy.graph.upsample import (
    refine_labels,
    refine_logits,
    upsample_labels,
)
from pointrend_deploy.model.instance.boxes import grouped_nms
from pointrend_deploy.model.instance.roi_align import levels_of, roi_align
from pointrend_deploy.model.pointrend import point_sample

CLOSE = 1e-5
"""Max abs of features in [-1, 1]: float32 sums in another order."""

POSITION = 2.0**-23
"""Rounding of a float32 position, as a share of the map's longer side. Features in [-1, 1] change
by up to 4 from cell to cell, 2 along each axis."""


def sampled(features: Tensor, points: Tensor) -> Tensor:
    """Sample (N, C, H, W) at (N, P, 2): (N, C, P) float64, 0 at points that are NaN or far away."""
    near = (points.abs() < 1e3).all(dim=2)
    inside = torch.where(near.unsqueeze(2), points, torch.full_like(points, -2.0))
    return point_sample(features.double(), inside.double())


def sampled_cells(fine: Tensor, coarse: Tensor, indices: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sample two maps at cells (N, K) of a grid, (N, E, K) float64 with the channels of zeros."""
    return sample_cells(fine.double(), coarse.double(), indices, *grid)


def pooled(
    features: Sequence[Tensor],
    boxes: Tensor,
    first_level: int,
    side: int,
    sampling_ratio: int = 0,
) -> Tensor:
    """RoIAlign of boxes (N, R, 4) -> (N * R, C, side, side) float64, levels chosen in float32.

    A box with a NaN or infinite corner gives zeros.
    """
    found = []
    for image, of_image in enumerate(boxes):
        finite = of_image.isfinite().all(dim=1, keepdim=True)
        some = torch.where(finite, of_image, torch.zeros_like(of_image))
        # On the CPU: log2 of a GPU may be one float off at a level's limit.
        chosen = levels_of(some.cpu(), first_level, first_level + len(features) - 1).to(some.device)
        out = torch.zeros(
            (len(some), features[0].shape[1], side, side), dtype=torch.float64, device=some.device
        )
        for number, feature in enumerate(features):
            here = (chosen == first_level + number).nonzero()[:, 0]
            scale = 0.5 ** (first_level + number)
            plane = feature[image : image + 1].double()
            out[here] = roi_align(plane, some[here].double(), scale, side, sampling_ratio)
        found.append(torch.where(finite[:, :, None, None], out, 0.0))
    return torch.cat(found)


def two_best(logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Uncertainty and labels (N, L) of logits (N, C, h, w) after upsampling, ties to the lower."""
    return upsample_labels(logits.double().cpu(), scale)


def refined(
    logits: Tensor, labels: Tensor, indices: Tensor, point_logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits (N, C, 2h, 2w) and labels (N, L) with the points put in."""
    refined_logits = refine_logits(logits.double(), indices, point_logits.double(), 2)
    return refined_logits, refine_labels(labels, indices, point_logits)


def highest(uncertainty: Tensor, k: int) -> Tensor:
    """Find the k highest of each row, ties to the lower index, NaN last.

    Returns:
        Indices (N, k) int64 on the CPU, ascending.
    """
    rows = []
    for row in uncertainty.detach().cpu().double().numpy():
        unknown = np.isnan(row)
        falling = -np.where(unknown, 0.0, row)
        order = np.lexsort((falling, unknown))  # stable; the last key counts first
        rows.append(np.sort(order[:k]))
    return torch.from_numpy(np.stack(rows))


def kept(boxes: Tensor, scores: Tensor, k: int, iou: float, score: float) -> list[list[int]]:
    """Return the indices that the reference's suppression keeps of each picture, at most k."""
    length = scores.shape[2]
    found = []
    for of_picture, flat in zip(boxes.cpu().flatten(1, 2), scores.cpu().flatten(1), strict=True):
        live = (flat > score).nonzero()[:, 0]
        best = grouped_nms(of_picture[live], flat[live], live // length, iou)
        found.append(live[best][:k].tolist())
    return found


def tolerance(expected: Tensor, longest: int, steps: int, half: bool) -> Tensor:
    """Return how far features in [-1, 1] sampled in float32 may lie from float64.

    Args:
        expected: in float64.
        longest: side of the map.
        steps: roundings of a position, each by :data:`POSITION` of the side.
        half: the result was rounded to float16.
    """
    allowed = torch.full_like(expected, CLOSE + 4 * steps * POSITION * longest)
    if half:
        allowed += expected.abs() * 2.0**-11 + 2.0**-25
    return allowed


def apart(found: Tensor, expected: Tensor, allowed: Tensor) -> str:
    """Say where values differ by more than is allowed, or are not numbers."""
    excess = (found.double() - expected).abs() - allowed
    bad = ~(excess <= 0)
    if not bad.any():
        return ""
    worst = (found.double() - expected).abs()[bad].max().item()
    at = bad.nonzero()[0].tolist()
    return f"{int(bad.sum())} of {bad.numel()} values differ, by up to {worst:g}; first at {at}"


def different(found: Tensor, expected: Tensor) -> str:
    """Say where integers, or exact numbers, differ."""
    found = found.cpu()
    if found.shape != expected.shape:
        return f"shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    bad = found != expected
    if not bad.any():
        return ""
    at = bad.nonzero()[0].tolist()
    return f"{int(bad.sum())} of {bad.numel()} values differ, first at {at}"


def unlike(indices: Tensor, count: Tensor, expected: list[list[int]]) -> str:
    """Say what is wrong with a suppression's indices and counts."""
    k = indices.shape[1]
    counts = torch.tensor([len(row) for row in expected])
    filled = torch.tensor([row + [0] * (k - len(row)) for row in expected])
    wrong = different(count, counts)
    return f"counts: {wrong}" if wrong else different(indices, filled)


def same_bits(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Return whether tensors are equal to the last bit, NaN and signed zeros included."""
    return all(
        torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        for a, b in zip(first, second, strict=True)
    )
