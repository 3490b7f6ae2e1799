"""What a comparison found, as lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.report.differences import score_lines
from pointrend_deploy.report.precision_view import View, column_status, view, warnings_of
from pointrend_deploy.report.task import report_task


def table(run: Run, report: Path) -> str:
    """Return the scores, what failed, what was left out, and the verdict.

    Args:
        run: the comparison.
        report: path of the report, which is named at the end.
    """
    task = report_task(run.task)
    lines = [*task.lines(run), *score_lines(run), ""]
    failed = [gate for gate in run.gates if not gate]
    for gate in failed:
        lines.append(f"failed: {gate.name} at {gate.stage}: {gate.value} {gate.op} {gate.limit}")
    lines += [f"unexplained: {problem}" for problem in task.unexplained(run)]
    if run.first_divergent:
        lines.append(f"first stage that differs: {run.first_divergent}")
    lines += [f"truth: {note}" for note in run.truth_notes]
    lines += [f"skipped {item.name}: {item.reason}" for item in run.skipped]
    verdict = "passed" if run.passed else "FAILED"
    lines.append(
        f"{verdict}: {run.candidate} against {run.reference}, {run.pictures} pictures, "
        f"{len(run.gates)} gates, {len(failed)} failed; see {report}"
    )
    return "\n".join(lines)


def precision_lines(table: PrecisionTable) -> list[str]:
    """Return the table of precisions as lines for the terminal.

    Below it stand where the error enters, the worst cases, the intervals of the changes, which
    limits failed, and a verdict: a precision that keeps its limits with too many other answers than
    fp32's has a warning and is not called passed.
    """
    shown = view(table)
    lines = _table(shown)
    if shown.simulated:
        lines.append(f"{shown.simulated}: ONNX Runtime simulation on the CPU; not an engine")
    lines += [f"where it enters: {sentence}" for sentence in shown.entries]
    if shown.stages_note:
        lines.append(f"no stages and no points: {shown.stages_note}")
    lines += shown.unreadable
    lines += [f"most different: {sentence}" for sentence in shown.worst]
    lines += shown.changes
    lines += [
        f"failed: {gate.precision}, {gate.name}: {gate.value}, limit {gate.limit}"
        for gate in shown.gates
        if not gate.passed and not gate.warns
    ]
    lines += shown.notes
    lower = [(column, column_status(column)) for column in table.columns[1:]]
    passed = [column.precision for column, status in lower if status == "passed"]
    failed = [column.precision for column, status in lower if status == "failed"]
    if passed:
        lines.append(f"passed: {', '.join(passed)} beside fp32")
    for column, status in lower:
        if status == "warning":
            lines += [f"WARNING: {column.precision}: {said}" for said in warnings_of(column)]
    if failed:
        lines.append(f"FAILED: {', '.join(failed)} beside fp32")
    return lines


def _table(shown: View) -> list[str]:
    heads = ("", "PyTorch", *shown.columns)
    body: list[tuple[str, ...]] = []
    for group in shown.groups:
        body.append((group.title,))
        for row in group.rows:
            changes = row.changes or ("",) * len(row.cells)
            between = row.intervals or ("",) * len(row.cells)
            cells = [
                " ".join(filter(None, (cell, change, f"({ends})" if ends else "")))
                for cell, change, ends in zip(row.cells, changes, between, strict=True)
            ]
            body.append((f"  {row.name}", row.reference, *cells))
    widths = [
        max(len(row[place]) for row in (heads, *(each for each in body if len(each) > 1)))
        for place in range(len(heads))
    ]

    def line(row: tuple[str, ...]) -> str:
        return "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()

    return [line(heads), *(line(row) for row in body)]
