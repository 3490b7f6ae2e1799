"""What a comparison found, as lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from pointrend_deploy.parity.gates import accuracy_gates
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.report.precision_view import View, view
from pointrend_deploy.report.task import report_task


def table(run: Run, report: Path) -> str:
    """Return the scores, what failed, what was left out, and the verdict.

    Args:
        run: the comparison.
        report: path of the report, which is named at the end.
    """
    task = report_task(run.task)
    lines = [*task.lines(run), ""]
    failed = [gate for gate in run.gates if not gate]
    for gate in failed:
        lines.append(f"failed: {gate.name} at {gate.stage}: {gate.value} {gate.op} {gate.limit}")
    lines += [f"unexplained: {problem}" for problem in task.unexplained(run)]
    if run.first_divergent:
        lines.append(f"first stage that differs: {run.first_divergent}")
    lines += [f"truth: {note}" for note in run.truth_notes or ()]
    lines += [f"skipped {item.name}: {item.reason}" for item in run.skipped]
    verdict = "passed" if run.passed else "FAILED"
    lines.append(
        f"{verdict}: {run.candidate} against {run.reference}, {run.pictures} pictures, "
        f"{len(run.gates)} gates, {len(failed)} failed; see {report}"
    )
    return "\n".join(lines)


def precision_lines(table: PrecisionTable) -> list[str]:
    """Return the table of precisions as lines for the terminal.

    Below it stand where the error enters, which limits failed, and a verdict.
    """
    shown = view(table)
    lines = _table(shown)
    if shown.simulated:
        lines.append(f"{shown.simulated}: ONNX Runtime simulation on the CPU; not an engine")
    lines += [f"where it enters: {sentence}" for sentence in shown.entries]
    if shown.stages_note:
        lines.append(f"no stages and no points: {shown.stages_note}")
    lines += shown.unreadable
    lines += [
        f"failed: {gate.precision}, {gate.name}: {gate.value}, limit {gate.limit}"
        for gate in shown.gates
        if not gate.passed
    ]
    lines += shown.notes
    failed = [column.precision for column in table.columns if not column]
    held = [column.precision for column in table.columns if accuracy_gates(column)]
    if failed:
        lines.append(f"FAILED: {', '.join(failed)} beside fp32")
    elif held:
        lines.append(f"passed: {', '.join(held)} beside fp32")
    return lines


def _table(shown: View) -> list[str]:
    heads = ("", "PyTorch", *shown.columns)
    body: list[tuple[str, ...]] = []
    for group in shown.groups:
        body.append((group.title,))
        for row in group.rows:
            changes = row.changes or ("",) * len(row.cells)
            cells = [" ".join(pair).strip() for pair in zip(row.cells, changes, strict=True)]
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
