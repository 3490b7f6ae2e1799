"""The stages of a subdivision, candidate beside reference, one after the other.

One swapped point may change a pixel of the final logits by any amount. So where the points of both
sides are known, the pixels that a stray point can have reached are left out and every other pixel
must agree. Where they are not known, as many pixels may differ as the allowed strays can reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.record.runs import Gate, PointsRow, StageRow
from pointrend_deploy.parity.subdivision import points, replay
from pointrend_deploy.parity.tensors import compare_tensor, missing
from pointrend_deploy.recipe.parts import PointHeadSpec

Array = npt.NDArray[Any]
INDICES, POINT_LOGITS = ".indices", ".point_logits"


def compare_stage(name: str, expected: Array, found: Array | None) -> StageRow:
    """Compare one tensor at the written tolerance of its kind, scaled by the reference.

    Args:
        name: of the stage.
        expected: the reference's array.
        found: the candidate's array; None where it lacks the stage, which fails.
    """
    if found is None:
        return missing(name, expected)
    limit = gates.scaled(gates.tensor_tolerance(name), expected)
    return compare_tensor(name, expected, found, limit)


def difference_gate(row: StageRow) -> Gate:
    """Make the gate on a tensor's largest difference, with the limit it was compared at."""
    tolerance = gates.tensor_tolerance(row.name)
    limit = tolerance.limit if row.limit is None else row.limit
    return gates.gate("largest difference", row.name, row.max_abs, "<=", limit, tolerance.reason)


class SubdivisionStages:
    """Compares the stages of a subdivision in the order the network computes them.

    Call :meth:`compare` once for every stage of the reference, in their order: the limits of later
    stages depend on the logits and on the strays of earlier ones.

    Args:
        reference: every stage by name, as arrays.
        candidate: the same names and shapes; it may lack some.
        maps: the reference's uncertainty for each ``step<t>.indices``, in order; may end early.
        disjoint_known: whether two sets of points without one in common still say which cells
            differ. They do for RoIs, of which one among many may be swapped by ties; for a picture
            they mean that all its cells may differ.

    Attributes:
        stages: a row for each stage that was compared or is missing.
        points: a row for each step whose points both sides have.
        gates: the limits on these rows.
        scale: factor on the limits of uncertainties and final logits: the largest root mean square
            of the reference's logits so far, at least 1.
        known: number of steps of which it is known at which cells the two sides differ.
    """

    def __init__(
        self,
        reference: Mapping[str, Array],
        candidate: Mapping[str, Array],
        maps: Iterator[Array],
        *,
        disjoint_known: bool = False,
    ) -> None:
        self._reference, self._candidate, self._maps = reference, candidate, maps
        self._disjoint_known = disjoint_known
        self._strays: list[Array] = []
        self.stages: list[StageRow] = []
        self.points: list[PointsRow] = []
        self.gates: list[Gate] = []
        self.scale = max(1.0, gates.rms(reference["coarse"])) if "coarse" in reference else 1.0
        self.known = 0

    def compare(self, name: str, *, optional: bool = False) -> None:
        """Compare the next stage but the final logits, and add its row and gates.

        Args:
            name: of the stage.
            optional: whether the candidate may lack it; then no row is added.
        """
        expected, found = self._reference[name], self._candidate.get(name)
        if name.endswith("logits"):
            # later uncertainties are made of these too, and they may exceed the coarse logits
            self.scale = max(self.scale, gates.rms(expected))
        unsure = next(self._maps, None) if name.endswith(INDICES) else None
        if found is None:
            if not optional:
                self.add(missing(name, expected))
                self._add_strays(name, None, unsure)
        elif name.endswith(INDICES):
            self._compare_points(name, found, unsure)
        elif name.endswith(POINT_LOGITS) and _indices_of(name) in self._reference:
            self.add(self._point_logits(name, found))
        else:
            self.add(compare_stage(name, expected, found))

    def final_logits(self, name: str, point_head: PointHeadSpec | None = None) -> StageRow | None:
        """Compare the final logits (N, C, H, W), the last stage, outside the reach of strays.

        Args:
            name: of the stage.
            point_head: given where the candidate may not say which points it chose; then as many
                pixels may differ as the strays allowed by ``point_head`` can reach.

        Returns:
            A row, not yet added; None where the candidate lacks the logits.
        """
        expected, found = self._reference[name], self._candidate.get(name)
        self.scale = max(self.scale, gates.rms(expected))
        if found is None:
            return None
        limit = gates.LOGITS.limit * self.scale
        if point_head is not None and self.known < point_head.subdivision_steps:
            allowed = _allowed_share(point_head, expected.shape[2], expected.shape[3])
            return _compare_share(name, expected, found, limit, allowed)
        reached = replay.reach(self._strays) if self._strays else None
        return _compare_outside(name, expected, found, limit, reached)

    def add(self, row: StageRow, *, gated: bool = True) -> None:
        """Add the row of a tensor and, where ``gated``, the limit on its largest difference."""
        self.stages.append(row)
        if gated:
            self.gates.append(difference_gate(row))

    def _compare_points(self, name: str, found: Array, unsure: Array | None) -> None:
        expected = self._reference[name]
        step = int(name.removeprefix("step").removesuffix(INDICES))
        excused = cells_reached(self._strays, unsure)
        row = points.compare_points(step, expected, found, unsure, self.scale, excused)
        known = row.worst_gap is not None and (row.jaccard > 0 or self._disjoint_known)
        self.known += known
        self._add_strays(name, found if known else None, unsure)
        self.points.append(row)
        self.stages.append(_points_stage(name, expected, row))
        self.gates += _points_gates(name, row)

    def _add_strays(self, name: str, found: Array | None, unsure: Array | None) -> None:
        """Add the cells at which a step's two sides differ; all where nothing is known of them."""
        if unsure is None:
            return
        if found is None:
            self._strays.append(np.ones(unsure.shape, np.bool_))
            return
        grid_hw = (unsure.shape[1], unsure.shape[2])
        self._strays.append(points.stray_map(self._reference[name], found, grid_hw))

    def _point_logits(self, name: str, found: Array) -> StageRow:
        """Compare point logits (N, C, K) at the points both sides chose."""
        at, expected = _indices_of(name), self._reference[name]
        if at not in self._candidate:
            return missing(name, expected)
        theirs, ours = self._reference[at], self._candidate[at]
        if found.shape != expected.shape or ours.shape != theirs.shape:
            return compare_tensor(name, expected, found, gates.POINT_LOGITS.limit)
        left, right = points.common_logits(theirs, expected, ours, found)
        if not left.size:
            return StageRow(
                name=name,
                kind="tensor",
                shape=expected.shape,
                passed=False,
                problem="no point was chosen by both sides",
            )
        row = compare_tensor(name, left, right, gates.scaled(gates.POINT_LOGITS, expected))
        return msgspec.structs.replace(row, shape=expected.shape)


def cells_reached(strays: Sequence[Array], unsure: Array | None) -> Array | None:
    """Mark the cells of a step's grid that strays of earlier steps have changed.

    Args:
        strays: bool maps (N, H_t, W_t) of the earlier steps.
        unsure: (N, H, W), the step's uncertainty.

    Returns:
        (N, H, W) bool; None where there is no earlier step or the uncertainty is not known.
    """
    if unsure is None or not strays:
        return None
    return replay.reach([*strays, np.zeros(unsure.shape, np.bool_)])


def _indices_of(name: str) -> str:
    return name.removesuffix(POINT_LOGITS) + INDICES


def _points_stage(name: str, expected: Array, row: PointsRow) -> StageRow:
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


def _points_gates(name: str, row: PointsRow) -> tuple[Gate, Gate]:
    malformed = bool(row.problem) and row.worst_gap is None
    share = 1.0 if malformed else row.stray_fraction
    limit, gap = gates.strays_limit(row.k), "farthest stray from the K-th uncertainty"
    return (
        gates.gate("stray points", name, share, "<=", limit, gates.STRAYS.reason),
        gates.gate(gap, name, row.worst_gap, "<=", row.gap_limit, gates.NEAR_TIE.reason),
    )


def _compare_outside(
    name: str, reference: Array, candidate: Array, limit: float, reached: Array | None
) -> StageRow:
    """Compare logits (N,C,H,W) at every pixel but those ``reached`` (N,H,W) by strays."""
    if reached is None or not reached.any() or reference.shape != candidate.shape:
        return compare_tensor(name, reference, candidate, limit)
    compared = np.where(reached[:, None], reference, candidate)
    row = compare_tensor(name, reference, compared, limit)
    left_out = int(reached.sum()) * reference.shape[1]
    return msgspec.structs.replace(row, compared=row.compared - left_out)


def _compare_share(
    name: str, reference: Array, candidate: Array, limit: float, allowed: float
) -> StageRow:
    """Compare logits (N,C,H,W) of which a share ``allowed`` of the pixels may exceed ``limit``."""
    row = compare_tensor(name, reference, candidate, limit)
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


def _allowed_share(point_head: PointHeadSpec, height: int, width: int) -> float:
    """Share of a ``height`` x ``width`` grid that the allowed number of stray points can reach."""
    pixels, reached = height * width, 0.0
    for step in range(point_head.subdivision_steps):
        doublings = point_head.subdivision_steps - 1 - step
        cells = pixels // 4**doublings
        if point_head.subdivision_points < cells:  # else every cell is chosen: no strays
            strays = gates.STRAYS.limit * point_head.subdivision_points
            reached += strays * replay.reach_width(doublings) ** 2
    return min(1.0, reached / pixels)
