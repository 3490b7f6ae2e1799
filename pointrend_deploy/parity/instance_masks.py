"""The mask part of a graph against the reference's, both on the graph's own boxes and classes.

Held on the same boxes, no detection that fell the other way can hide or cause a difference here.
R is the number of RoIs of all pictures together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity import gates, points, replay
from pointrend_deploy.parity.logits import compare_outside
from pointrend_deploy.parity.results import Gate, PointsRow, StageRow
from pointrend_deploy.parity.tensors import compare_tensor, missing

Array = npt.NDArray[Any]
MaskForm = Literal["prob", "prob-u8", "logits"]


@dataclass
class MaskStages:
    """Rows of the mask part's stages, in order, its points and its gates."""

    stages: list[StageRow] = field(default_factory=list)
    points: list[PointsRow] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)


def compare_mask_stages(
    reference: Mapping[str, Array], candidate: Mapping[str, Array]
) -> MaskStages:
    """Hold every stage of ``InstanceModel.mask_stages`` against a graph's of the same boxes.

    Args:
        reference: ``coarse`` (R, C, s, s), ``step0.point_logits`` (R, 1, P), ``step<t>.indices``
            (R, K), ``step<t>.point_logits`` (R, 1, K), ``mask_logits`` (R, 1, S, S) in order; with
            the standard mask head ``mask_logits`` alone. R is at least 1.
        candidate: the same names and shapes; a stage it lacks fails.
    """
    found = MaskStages()
    maps = uncertainty_maps(reference)
    scale = max(1.0, gates.rms(reference["coarse"])) if "coarse" in reference else 1.0
    strays: list[Array] = []
    for name, expected in reference.items():
        ours = candidate.get(name)
        if name.endswith("logits"):
            scale = max(scale, gates.rms(expected))
        unsure = next(maps) if name.endswith(".indices") else None
        if ours is None:
            found.stages.append(missing(name, expected))
            if unsure is not None:
                strays.append(np.ones(unsure.shape, np.bool_))
        elif unsure is not None:
            _points(found, name, expected, ours, unsure, scale, strays)
        elif name.endswith(".point_logits") and name != "step0.point_logits":
            _point_logits(found, name, reference, candidate)
        elif name == "mask_logits":
            _mask_logits(found, expected, ours, scale, strays)
        else:
            tolerance = gates.tensor_tolerance(name)
            _held(found, compare_tensor(name, expected, ours, gates.scaled(tolerance, expected)))
    return found


def uncertainty_maps(stages: Mapping[str, Array]) -> Iterator[Array]:
    """The uncertainty each step after the first grid chose by: minus the absolute logit.

    Args:
        stages: ``step0.point_logits`` (R, 1, side**2) row by row, then ``step<t>.indices`` (R, K)
            and ``step<t>.point_logits`` (R, 1, K).

    Yields:
        (R, 2 side, 2 side) float32, then (R, 4 side, 4 side), ...
    """
    if "step0.point_logits" not in stages:
        return
    first = np.asarray(stages["step0.point_logits"], np.float32)
    side = round(first.shape[2] ** 0.5)
    grid = first.reshape(len(first), 1, side, side)
    step = 1
    while f"step{step}.indices" in stages:
        grid = replay.double(grid)
        yield -np.abs(grid[:, 0])
        r, c, h, w = grid.shape
        where = stages[f"step{step}.indices"][:, None]
        flat = grid.reshape(r, c, h * w)
        np.put_along_axis(flat, where, stages[f"step{step}.point_logits"], axis=2)
        step += 1


def _held(found: MaskStages, row: StageRow) -> None:
    tolerance = gates.tensor_tolerance(row.name)
    limit = tolerance.limit if row.limit is None else row.limit
    found.stages.append(row)
    found.gates.append(
        gates.gate("largest difference", row.name, row.max_abs, "<=", limit, tolerance.reason)
    )


def _points(
    found: MaskStages,
    name: str,
    expected: Array,
    ours: Array,
    unsure: Array,
    scale: float,
    strays: list[Array],
) -> None:
    step = int(name.removeprefix("step").removesuffix(".indices"))
    excused = _reached(strays, unsure)
    row = points.compare_points(step, expected, ours, unsure, scale, excused)
    known = row.worst_gap is not None
    strays.append(
        points.stray_map(expected, ours, (unsure.shape[1], unsure.shape[2]))
        if known
        else np.ones(unsure.shape, np.bool_)  # nothing is known, so all may differ
    )
    found.points.append(row)
    found.stages.append(
        StageRow(
            name=name,
            kind="points",
            shape=expected.shape,
            passed=row.passed,
            compared=expected.size,
            agreement=1.0 - row.strays / max(1, expected.size) if known else None,
            problem=row.problem,
        )
    )
    limit = gates.strays_limit(row.k)
    share = row.stray_fraction if known else 1.0
    reason = gates.STRAYS.reason
    found.gates.append(gates.gate("stray points", name, share, "<=", limit, reason))
    found.gates.append(
        gates.gate(
            "farthest stray from the K-th uncertainty",
            name,
            row.worst_gap,
            "<=",
            row.gap_limit,
            gates.NEAR_TIE.reason,
        )
    )


def _reached(strays: list[Array], unsure: Array) -> Array | None:
    """Cells of this step's grid that a stray of an earlier step has changed."""
    if not strays:
        return None
    here = np.zeros(unsure.shape, np.bool_)
    grids = [(each.shape[1], each.shape[2]) for each in (*strays, here)]
    return replay.reach([*strays, here], grids)


def _point_logits(
    found: MaskStages, name: str, reference: Mapping[str, Array], candidate: Mapping[str, Array]
) -> None:
    at = name.replace(".point_logits", ".indices")
    expected, ours = reference[name], candidate[name]
    if at not in candidate:
        found.stages.append(missing(name, expected))
        return
    limit = gates.scaled(gates.POINT_LOGITS, expected)
    if ours.shape != expected.shape or candidate[at].shape != reference[at].shape:
        _held(found, compare_tensor(name, expected, ours, limit))
        return
    left, right = points.common_logits(reference[at], expected, candidate[at], ours)
    row = compare_tensor(name, left, right, limit)
    if not left.size:
        row = msgspec.structs.replace(
            row, passed=False, max_abs=None, problem="no point was chosen by both sides"
        )
    _held(found, msgspec.structs.replace(row, shape=expected.shape))


def _mask_logits(
    found: MaskStages, expected: Array, ours: Array, scale: float, strays: list[Array]
) -> None:
    limit = gates.LOGITS.limit * scale
    reached = None
    if strays:
        reached = replay.reach(strays, [(each.shape[1], each.shape[2]) for each in strays])
    row = compare_outside(expected, ours, limit, reached)
    _held(found, msgspec.structs.replace(row, name="mask_logits"))
