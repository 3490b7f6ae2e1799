"""The final logits of two runs, where one swapped point may change a pixel by any amount.

Where both sides' points are known, pixels that a stray point can have reached are left out and
every other must agree. Where they are not, as many pixels may differ as the allowed strays reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.record.runs import PointsRow, StageRow
from pointrend_deploy.parity.subdivision import replay
from pointrend_deploy.parity.tensors import compare_tensor
from pointrend_deploy.recipe.parts import PointHeadSpec

Array = npt.NDArray[Any]


def compare_outside(
    reference: Array, candidate: Array, limit: float, reached: Array | None
) -> StageRow:
    """Compare logits (N,C,H,W) at every pixel but those ``reached`` (N,H,W) bool by strays."""
    if reached is None or not reached.any() or reference.shape != candidate.shape:
        return compare_tensor("logits", reference, candidate, limit)
    held = np.where(reached[:, None], reference, candidate)
    row = compare_tensor("logits", reference, held, limit)
    left_out = int(reached.sum()) * reference.shape[1]
    return msgspec.structs.replace(row, compared=row.compared - left_out)


def compare_share(reference: Array, candidate: Array, limit: float, allowed: float) -> StageRow:
    """Compare logits (N,C,H,W) when the points are unknown.

    Args:
        reference: (N, C, H, W).
        candidate: the same.
        limit: largest difference that counts as none.
        allowed: share of pixels that may differ by more than the limit (see ``allowed_share``).
    """
    row = compare_tensor("logits", reference, candidate, limit)
    if row.passed or row.max_abs is None:
        return row
    beyond = np.zeros((reference.shape[0], *reference.shape[2:]), np.bool_)
    for plane in range(reference.shape[1]):
        beyond |= np.abs(candidate[:, plane] - reference[:, plane]) > limit
    share = float(beyond.mean())
    passed = share <= allowed
    return msgspec.structs.replace(
        row,
        passed=passed,
        compared=row.compared - int(beyond.sum()) * reference.shape[1],
        problem=""
        if passed
        else f"{100 * share:.3f} % of the pixels differ by more than {limit:.3g}; "
        f"stray points explain {100 * allowed:.3f} % at most",
    )


def allowed_share(point_head: PointHeadSpec | None, height: int, width: int) -> float:
    """Share of a ``height`` x ``width`` grid that the allowed number of stray points can reach."""
    if point_head is None:
        return 0.0
    pixels, reached = height * width, 0.0
    for step in range(point_head.subdivision_steps):
        doublings = point_head.subdivision_steps - 1 - step
        cells = pixels // 4**doublings
        if point_head.subdivision_points < cells:  # else every cell is chosen: no strays
            strays = gates.STRAYS.limit * point_head.subdivision_points
            reached += strays * replay.reach_width(doublings) ** 2
    return min(1.0, reached / pixels)


def cells_reached(strays: Sequence[Array], unsure: Array | None) -> Array | None:
    """Cells of this step's grid that a stray of an earlier step has changed."""
    if unsure is None or not strays:
        return None
    here = np.zeros(unsure.shape, np.bool_)
    grids = [(each.shape[1], each.shape[2]) for each in (*strays, here)]
    return replay.reach([*strays, here], grids)


def points_stage(name: str, expected: Array, row: PointsRow) -> StageRow:
    """The record's row for the points chosen in one subdivision step."""
    malformed = bool(row.problem) and row.worst_gap is None
    return StageRow(
        name=name,
        kind="points",
        shape=expected.shape,
        passed=row.passed,
        compared=expected.size,
        agreement=None if malformed else 1.0 - row.strays / max(1, expected.size),
        problem=row.problem,
    )
