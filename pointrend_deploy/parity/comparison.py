"""Many pictures' verifications as one table: the worst of each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from pointrend_deploy.errors import ParityError
from pointrend_deploy.parity import gates
from pointrend_deploy.parity.record.runs import Gate, PointsRow, StageRow
from pointrend_deploy.parity.tensors import first_divergent

Row = TypeVar("Row", StageRow, PointsRow, Gate)


def worst_stages(results: Sequence[VerificationResult]) -> tuple[StageRow, ...]:
    """For each stage the row of its worst picture; label agreement is that of all pixels."""
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
    """For each subdivision step the row of its worst picture."""
    return _worst(
        ((str(row.step), row) for result in results for row in result.points),
        lambda row: (not row.passed, row.stray_fraction, row.worst_gap or 0.0),
    )


def worst_gates(results: Sequence[VerificationResult]) -> tuple[Gate, ...]:
    """For each gate its worst picture; the label gate is on all pixels together."""
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
    """Agreement over all pictures' pixels: one busy picture may fall below, the sum may not."""
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


@dataclass(frozen=True)
class VerificationResult:
    """What was held against what, in the order of the stages. Truthy when every gate passed."""

    stages: tuple[StageRow, ...]
    points: tuple[PointsRow, ...]
    gates: tuple[Gate, ...]

    def __bool__(self) -> bool:
        return all(self.stages) and all(self.gates)

    @property
    def passed(self) -> bool:
        """Whether every stage and every gate passed."""
        return bool(self)

    @property
    def first_divergent(self) -> str | None:
        """Name of the first stage that differs; None where all agree."""
        return first_divergent(self.stages)

    def raise_if_failed(self, candidate: str = "the exported graph") -> None:
        """Raise ParityError (exit code 3) naming the first stage that differs and by how much."""
        row = next((stage for stage in self.stages if not stage), None)
        if row is not None:
            raise ParityError(
                f"{candidate} differs from the PyTorch reference, first at `{row.name}`: "
                f"{row.problem}",
                "the stages before it agree, so the fault lies between them and it; "
                "tolerances and their reasons stand in pointrend_deploy/parity/gates.py",
            )
