"""The table of precisions as lines for the terminal."""

from __future__ import annotations

from pointrend_deploy.parity.precision_gates import accuracy_gates
from pointrend_deploy.parity.precision_results import PrecisionTable
from pointrend_deploy.parity.precision_view import View, view


def precision_lines(table: PrecisionTable) -> list[str]:
    """A column each, where the error enters, which limits failed, and a verdict on them."""
    shown = view(table)
    lines = _table(shown)
    if shown.simulated:
        lines.append(f"{shown.simulated}: ONNX Runtime simulation on the CPU; not an engine")
    lines += [f"where it enters: {told}" for told in shown.entries]
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
