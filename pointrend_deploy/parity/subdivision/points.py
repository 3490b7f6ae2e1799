"""The sets of points two runs chose: which points differ, and whether rounding explains it.

The order of the chosen points is free, and near the K-th uncertainty rounding decides. So lists of
indices are never compared, only sets: the points that only one side chose (strays) must be few and
lie near the K-th uncertainty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.gates import NEAR_TIE, ROUNDING, strays_limit
from pointrend_deploy.parity.record.runs import PointsRow

Array = npt.NDArray[Any]


def compare_points(
    step: int,
    reference: Array,
    candidate: Array,
    uncertainty: Array | None = None,
    scale: float = 1.0,
    excused: Array | None = None,
) -> PointsRow:
    """Compare the points of one subdivision step.

    Args:
        step: number of the step, from 0.
        reference: (N, K) integer flat indices row * W + column, in any order.
        candidate: the same.
        uncertainty: (N, H, W), the reference's uncertainty the points were chosen by.
        scale: factor on the distances that count as a near tie, at least 1 (see ``gates``).
        excused: (N, H, W) bool, cells that strays of earlier steps have changed. The two sides'
            logits differ there by as much as point and upsampled logits do, so a stray there is
            counted but need not lie near the K-th uncertainty.

    Returns:
        A row that passes when the sets agree within the written tolerances.
    """
    grid_hw = None if uncertainty is None else (uncertainty.shape[1], uncertainty.shape[2])
    gap_limit = NEAR_TIE.limit * scale
    problem = _malformed(reference, candidate, grid_hw)
    n, k = reference.shape if reference.ndim == 2 else (1, reference.size)
    if problem:
        return PointsRow(
            step=step,
            k=k,
            grid_hw=grid_hw,
            jaccard=0.0,
            strays=n * k,
            exchangeable=0,
            stray_fraction=1.0,
            worst_gap=None,
            gap_limit=gap_limit,
            passed=False,
            problem=problem,
        )
    jaccard, strays, exchangeable, gaps = 1.0, 0, 0, [0.0]
    for image in range(n):
        only_left = np.setdiff1d(reference[image], candidate[image], assume_unique=True)
        only_right = np.setdiff1d(candidate[image], reference[image], assume_unique=True)
        jaccard = min(jaccard, (k - only_left.size) / (k + only_right.size) if k else 1.0)
        strays += int(only_left.size)
        if uncertainty is None or not only_left.size:
            continue
        flat = uncertainty[image].reshape(-1)
        kth = float(np.partition(flat, flat.size - k)[flat.size - k])
        missed = np.abs(flat[only_left].astype(np.float64) - kth)
        added = np.abs(flat[only_right].astype(np.float64) - kth)
        held = np.concatenate((missed, added))
        if excused is not None:
            held = held[~excused[image].reshape(-1)[np.concatenate((only_left, only_right))]]
        gaps.append(float(held.max(initial=0.0)))
        # A point can only stand in for another where both are as good as the K-th.
        free = ROUNDING.limit * scale
        exchangeable += int(min((missed <= free).sum(), (added <= free).sum()))
    worst = max(gaps) if uncertainty is not None else None
    fraction = (strays - exchangeable) / (n * k) if n * k else 0.0
    found = []
    if fraction > strays_limit(k):
        found.append(f"{100 * fraction:.2f} % of the points are not the reference's")
    if worst is not None and worst > gap_limit:
        found.append(f"a stray point lies {worst:.3g} from the K-th uncertainty")
    return PointsRow(
        step=step,
        k=k,
        grid_hw=grid_hw,
        jaccard=jaccard,
        strays=strays,
        exchangeable=exchangeable,
        stray_fraction=fraction,
        worst_gap=worst,
        gap_limit=gap_limit,
        passed=not found,
        problem="; ".join(found),
    )


def stray_map(reference: Array, candidate: Array, grid_hw: tuple[int, int]) -> Array:
    """Mark the cells that are in only one of two (N, K) index arrays: (N, H, W) bool."""
    n = reference.shape[0]
    left = np.zeros((n, grid_hw[0] * grid_hw[1]), dtype=np.bool_)
    right = np.zeros_like(left)
    np.put_along_axis(left, reference, True, axis=1)
    np.put_along_axis(right, candidate, True, axis=1)
    return np.asarray((left ^ right).reshape(n, *grid_hw))


def common_logits(
    reference_indices: Array,
    reference_logits: Array,
    candidate_indices: Array,
    candidate_logits: Array,
) -> tuple[Array, Array]:
    """Take the logits of both sides at the points both chose, in one order.

    Args:
        reference_indices: (N, K) integers.
        reference_logits: (N, C, K), in the order of their indices.
        candidate_indices: as the reference's.
        candidate_logits: as the reference's.

    Returns:
        Two arrays (C, M), M the number of common points over all images.
    """
    left, right = [], []
    for image in range(reference_indices.shape[0]):
        _, at_left, at_right = np.intersect1d(
            reference_indices[image], candidate_indices[image], return_indices=True
        )
        left.append(reference_logits[image][:, at_left])
        right.append(candidate_logits[image][:, at_right])
    return np.concatenate(left, axis=1), np.concatenate(right, axis=1)


def _malformed(reference: Array, candidate: Array, grid_hw: tuple[int, int] | None) -> str:
    if reference.ndim != 2 or candidate.shape[:1] != reference.shape[:1] or candidate.ndim != 2:
        return f"shape {tuple(candidate.shape)} where {tuple(reference.shape)} is expected"
    if candidate.shape[1] != reference.shape[1]:
        return f"{candidate.shape[1]} points an image where {reference.shape[1]} are expected"
    if candidate.dtype.kind not in "iu" or reference.dtype.kind not in "iu":
        return f"indices of type {candidate.dtype}, not integers"
    size = grid_hw[0] * grid_hw[1] if grid_hw else None
    for side, indices in (("reference", reference), ("candidate", candidate)):
        if indices.size and (indices.min() < 0 or (size is not None and indices.max() >= size)):
            return f"the {side} has a point outside its grid"
        ordered = np.sort(indices, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            return f"the {side} chose a point twice"
    return ""
