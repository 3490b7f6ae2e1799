"""The verifications of many pictures as one table: the worst row of each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.comparison import VerificationResult
from pointrend_deploy.parity.record.runs import Gate, PointsRow, StageRow

Row = TypeVar("Row", StageRow, PointsRow, Gate)


def worst_stages(results: Sequence[VerificationResult]) -> tuple[StageRow, ...]:
    """Return the row of the worst picture for each stage.

    The agreement of labels is taken over the pixels of all pictures.
    """
    rows = _worst(
        ((row.name, row) for result in results for row in result.stages),
        lambda row: (
            not row.passed,
            row.max_abs is None,
            (row.max_abs or 0.0) / (row.limit or 1.0),
            1.0 - (1.0 if row.agreement is None else row.agreement),
        ),
    )
    return tuple(_pooled_labels(row, results) if row.kind == "labels" else row for row in rows)


def worst_points(results: Sequence[VerificationResult]) -> tuple[PointsRow, ...]:
    """Return the row of the worst picture for each subdivision step."""
    return _worst(
        ((str(row.step), row) for result in results for row in result.points),
        lambda row: (not row.passed, row.stray_fraction, row.worst_gap or 0.0),
    )


def worst_gates(results: Sequence[VerificationResult]) -> tuple[Gate, ...]:
    """Return the gate of the worst picture for each gate.

    The gate on labels is on the pixels of all pictures together.
    """
    held = _worst(
        ((f"{row.stage} {row.name}", row) for result in results for row in result.gates),
        lambda row: (
            not row.passed,
            row.value is None,
            (row.value or 0.0) / row.limit * (1 if row.op == "<=" else -1),
        ),
    )
    labels = next(row for row in worst_stages(results) if row.kind == "labels")
    return tuple(
        gates.gate(
            row.name,
            row.stage,
            labels.agreement,
            row.op,
            gates.labels_limit(labels.compared),
            row.reason,
        )
        if row.stage == "labels"
        else row
        for row in held
    )


def _pooled_labels(row: StageRow, results: Iterable[VerificationResult]) -> StageRow:
    """Take the agreement over all pictures' pixels.

    One picture with many outlines may fall below the limit; all pictures together may not.
    """
    all_rows = [stage for result in results for stage in result.stages if stage.kind == "labels"]
    if any(stage.agreement is None for stage in all_rows):
        return row
    compared = sum(stage.compared for stage in all_rows)
    same = sum((stage.agreement or 0.0) * stage.compared for stage in all_rows)
    share = same / compared if compared else 1.0
    problem = gates.labels_problem(share, compared)
    return msgspec.structs.replace(
        row,
        compared=compared,
        agreement=share,
        passed=not problem,
        problem=problem,
    )


def _worst(
    rows: Iterable[tuple[str, Row]], badness: Callable[[Row], tuple[Any, ...]]
) -> tuple[Row, ...]:
    found: dict[str, Row] = {}
    for name, row in rows:
        if name not in found or badness(row) > badness(found[name]):
            found[name] = row
    return tuple(found.values())
