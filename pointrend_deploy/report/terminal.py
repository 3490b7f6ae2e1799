"""What a comparison found, as lines for the terminal.

MERGED: The table of precisions as lines for the terminal.
"""

from __future__ import annotations

from pathlib import Path

from pointrend_deploy.parity.gates import accuracy_gates
from pointrend_deploy.parity.record.detections import DetectionsRow
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.report.figures import counted, small
from pointrend_deploy.report.precision_view import View, view

GALLERY_PICTURES = 6
"""Pictures a comparison draws for its report."""


def table(run: Run, report: Path) -> str:
    """Scores, what failed, what was left out, and the verdict.

    Args:
        run: what was found.
        report: where the report will lie.
    """
    lines = _labels(run)
    if run.detections is not None:
        lines = [*_detections(run.detections), *_accuracy(run)]
    lines.append("")
    failed = [gate for gate in run.gates if not gate]
    for gate in failed:
        lines.append(f"failed: {gate.name} at {gate.stage}: {gate.value} {gate.op} {gate.limit}")
    if run.detections is not None:
        lines += [f"unexplained: {told}" for told in run.detections.unexplained]
    if run.first_divergent:
        lines.append(f"first stage that differs: {run.first_divergent}")
    lines += [f"skipped {item.name}: {item.reason}" for item in run.skipped]
    verdict = "passed" if run.passed else "FAILED"
    lines.append(
        f"{verdict}: {run.candidate} against {run.reference}, {run.pictures} pictures, "
        f"{len(run.gates)} gates, {len(failed)} failed; see {report}"
    )
    return "\n".join(lines)


def _labels(run: Run) -> list[str]:
    lines = [f"{'':12}{'against':>11}{'agree':>10}{'mIoU':>8}{'bIoU 2px':>10}{'bIoU 2 %':>10}"]
    for row in run.metrics:
        bands = row.boundary_iou
        cells = [_percent(row.agreement, 2), _percent(row.miou)]
        cells += [_percent(bands.get("2 px")), _percent(bands.get("2 %"))]
        shown = _columns(cells, (10, 8, 10, 10))
        lines.append(f"{row.prediction:12}{row.against:>11}{shown}")
    return lines


def _detections(row: DetectionsRow) -> list[str]:
    strays = row.only_bundle + row.only_reference
    lines = [
        f"detections       {row.matched} matched, {row.only_bundle} only in the bundle, "
        f"{row.only_reference} only in the reference"
        + (f" ({row.explained} near ties)" if strays else "")
    ]
    if row.matched:
        lines += [
            f"boxes            within {small(row.box_canvas_px)} px of the network input, "
            f"{small(row.box_picture_px)} px of the picture",
            f"scores           within {small(row.score)}",
        ]
    if row.mask_iou_mean is not None and row.mask_iou_min is not None:
        lines.append(
            f"masks            IoU mean {row.mask_iou_mean:.5f}, least {row.mask_iou_min:.5f}"
        )
    return lines


def _accuracy(run: Run) -> list[str]:
    if run.truth is None:
        return []
    truth = run.truth
    lines = [
        "",
        f"{counted(truth.pictures, 'picture')} of {truth.source}: "
        f"{counted(truth.objects, 'object')}, {counted(truth.crowds, 'crowd')}; "
        f"COCO-style AP in percent by {truth.evaluator}",
        f"{'':10}{'':12}" + _columns(("AP", "AP50", "AP75", "small", "medium", "large"), (8,) * 6),
    ]
    for row in run.accuracy:
        values = (row.ap, row.ap50, row.ap75, row.small, row.medium, row.large)
        cells = _columns([_percent(value) for value in values], (8,) * 6)
        lines.append(f"{row.measure:10}{row.prediction:12}{cells}")
    if truth.classes_left_out:
        lines.append(
            f"not scored, as the truth does not list them: {_some(truth.classes_left_out)}"
        )
    return lines


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _columns(cells: list[str] | tuple[str, ...], widths: tuple[int, ...]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


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
