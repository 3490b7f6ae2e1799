"""The rows of the table of precisions, in groups, with every figure as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pointrend_deploy.parity.record.precisions import (
    PrecisionColumn,
    PrecisionTable,
    StepOverlap,
)
from pointrend_deploy.report.differences import interval
from pointrend_deploy.report.figures import NONE, counted, percent, points

RUNS = {"onnx": "ONNX Runtime", "tensorrt": "TensorRT"}
Getter = Callable[[PrecisionColumn], float | None]
Found = Callable[[PrecisionColumn], StepOverlap | None]


@dataclass(frozen=True)
class ViewRow:
    """One figure of every column.

    Attributes:
        name: of the figure.
        reference: PyTorch's own figure; may be empty.
        cells: the figure of each precision.
        changes: what each precision gains or loses beside fp32, in points; empty for figures that
            are no scores.
        intervals: the 95 % interval of each change, in points, and an empty text where there is
            none; empty where no column has one.
    """

    name: str
    reference: str
    cells: tuple[str, ...]
    changes: tuple[str, ...] = ()
    intervals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Rows that belong together, their title, and a note beside it."""

    title: str
    note: str
    rows: tuple[ViewRow, ...]


def groups(table: PrecisionTable, scores: Sequence[Group], points_note: str) -> tuple[Group, ...]:
    """Return every group that has a row.

    Args:
        table: the precisions.
        scores: the groups of the task's own figures.
        points_note: where the points of refinement were chosen, after a comma; may be empty.
    """
    made = [*scores, _points(table, points_note), _made(table), _gates(table)]
    return tuple(group for group in made if group.rows)


def figure_row(
    name: str,
    columns: Sequence[PrecisionColumn],
    of: Callable[[PrecisionColumn], str],
    reference: str = "",
) -> list[ViewRow]:
    """Return a list of one row, or an empty list where every cell is a dash.

    Args:
        name: of the figure.
        columns: the precisions.
        of: gives a column's cell.
        reference: PyTorch's own figure, as text.
    """
    cells = tuple(of(column) for column in columns)
    return [] if set(cells) <= {NONE} else [ViewRow(name, reference, cells)]


def score_row(
    name: str, columns: Sequence[PrecisionColumn], of: Getter, reference: float | None
) -> list[ViewRow]:
    """Return a list of one row with a score in percent, or an empty list where no column has it.

    Args:
        name: of the score.
        columns: the precisions; changes are in points beside the first of them.
        of: gives a column's score in 0..1.
        reference: PyTorch's own score in 0..1.
    """
    values = [of(column) for column in columns]
    if all(value is None for value in values):
        return []
    base = values[0]
    changes = tuple(
        "" if index == 0 or value is None or base is None else points(value - base)
        for index, value in enumerate(values)
    )
    intervals = tuple(
        "" if index == 0 else next((interval(i) for i in c.intervals if i.score == name), "")
        for index, c in enumerate(columns)
    )
    return [
        ViewRow(
            name,
            _hundredths(reference),
            tuple(map(_hundredths, values)),
            changes,
            intervals if any(intervals) else (),
        )
    ]


def scored_on(table: PrecisionTable) -> str:
    """Return the note of a group of scores against the truth."""
    said = f"percent, {counted(table.pictures, 'picture')}; beside it the change in points"
    if any(column.intervals for column in table.columns[1:]):
        return f"{said} and its 95 % interval"
    return said


def _points(table: PrecisionTable, note: str) -> Group:
    columns = table.columns
    steps = sorted({row.step for column in columns for row in column.points})
    rows: list[ViewRow] = []
    for step in steps:

        def found(column: PrecisionColumn, step: int = step) -> StepOverlap | None:
            return next((each for each in column.points if each.step == step), None)

        def share(column: PrecisionColumn, found: Found = found) -> str:
            overlap = found(column)
            return NONE if overlap is None else percent(overlap.share, 2)

        def jaccard(column: PrecisionColumn, found: Found = found) -> str:
            overlap = found(column)
            return NONE if overlap is None else f"{overlap.jaccard:.3f}"

        known = next(each for each in map(found, columns) if each is not None)
        rows += figure_row(f"step {step}, {known.k:,} points", columns, share)
        rows += figure_row(f"step {step}, Jaccard", columns, jaccard)
    return Group(
        "Points chosen for refinement",
        f"share of the FP32 graph's points that this precision chose too, over "
        f"{counted(table.stage_pictures, 'picture')}{note}",
        tuple(rows),
    )


def _made(table: PrecisionTable) -> Group:
    columns = table.columns

    def by(column: PrecisionColumn) -> str:
        if column.simulated:
            return "simulation"
        return column.engine or RUNS.get(column.runner, column.runner)

    def engines(column: PrecisionColumn) -> str:
        sizes = [_megabytes(size) for size in column.engines.values()]
        return ", ".join(f"{n} {s}" for n, s in zip(column.engines, sizes, strict=True)) or NONE

    def calibration(column: PrecisionColumn) -> str:
        if column.method is None:
            return NONE
        known = "" if column.pictures is None else f", {counted(column.pictures, 'picture')}"
        return ("TensorRT cache" if column.method == "cache" else column.method) + known

    rows = (
        figure_row("computed by", columns, by, "PyTorch")
        + figure_row("graph", columns, lambda c: _megabytes(c.graph_bytes))
        + figure_row("engines", columns, engines)
        + figure_row("layers in INT8", columns, lambda c: _count(c.int8_layers))
        + figure_row("FLOPs in INT8, of those meant", columns, lambda c: percent(c.int8_flops, 2))
        + figure_row("layers left out of INT8", columns, lambda c: _count(len(c.left_out)))
        + figure_row("layers kept in FP32", columns, lambda c: _count(len(c.fp32_layers)))
        + figure_row("all other layers", columns, lambda c: (c.fallback or NONE).upper())
        + figure_row("calibration", columns, calibration)
    )
    return Group("What it is", "", tuple(rows))


def _gates(table: PrecisionTable) -> Group:
    def cell(column: PrecisionColumn) -> str:
        if not column.gates:
            return NONE
        failed = [gate for gate in column.gates if not gate]
        if not failed:
            return f"{counted(len(column.gates), 'gate')} passed"
        return f"{len(failed)} of {counted(len(column.gates), 'gate')} FAILED"

    return Group("Limits", "", tuple(figure_row("held to its limits", table.columns, cell)))


def _hundredths(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.2f}"


def _megabytes(size: int | None) -> str:
    return NONE if not size else f"{size / 1e6:.1f} MB"


def _count(number: int) -> str:
    return f"{number:,}" if number else NONE
