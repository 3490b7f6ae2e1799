"""The rows of the table of precisions, in groups: figures as a reader meets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pointrend_deploy.parity.record.precisions import (
    LabelFigures,
    MatchFigures,
    PrecisionColumn,
    PrecisionTable,
    StepOverlap,
)
from pointrend_deploy.report.figures import NONE, counted, overlap, percent, small

MINUS = "\N{MINUS SIGN}"
RUNS = {"onnx": "ONNX Runtime", "tensorrt": "TensorRT"}
Getter = Callable[[PrecisionColumn], float | None]


@dataclass(frozen=True)
class ViewRow:
    """A figure of every column: PyTorch's first, then a cell for each precision.

    Attributes:
        changes: what each precision gains or loses beside fp32, in points; empty where that is not
            the question.
    """

    name: str
    reference: str
    cells: tuple[str, ...]
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Rows that belong together, and one line on what they are."""

    title: str
    note: str
    rows: tuple[ViewRow, ...]


def groups(table: PrecisionTable) -> tuple[Group, ...]:
    """Every group that has a row."""
    scored = _labels(table) if table.task == "semantic" else _detections(table)
    made = [*scored, _points(table), _made(table), _gates(table)]
    return tuple(group for group in made if group.rows)


def _row(
    name: str,
    columns: Sequence[PrecisionColumn],
    of: Callable[[PrecisionColumn], str],
    reference: str = "",
) -> list[ViewRow]:
    """A row, or none where no column has anything to say."""
    cells = tuple(of(column) for column in columns)
    return [] if set(cells) <= {NONE} else [ViewRow(name, reference, cells)]


def _scored(
    name: str, columns: Sequence[PrecisionColumn], of: Getter, reference: float | None
) -> list[ViewRow]:
    """A score in percent, and what each column gains or loses beside the first, in points."""
    values = [of(column) for column in columns]
    if all(value is None for value in values):
        return []
    base = values[0]
    changes = tuple(
        "" if index == 0 or value is None or base is None else _points_apart(value - base)
        for index, value in enumerate(values)
    )
    return [ViewRow(name, _hundredths(reference), tuple(map(_hundredths, values)), changes)]


def _labels(table: PrecisionTable) -> list[Group]:
    columns = table.columns
    compared = columns[0].labels_compared
    agree = _row(
        "the same as PyTorch", columns, lambda c: percent(c.agrees_reference), "100 %"
    ) + _row("the same as fp32", columns, lambda c: percent(c.agrees_fp32))
    return [
        Group(
            "Labels",
            f"of {compared:,} pixels of the network's canvas that show a picture",
            tuple(agree),
        ),
        Group(
            "Against the truth",
            _scored_on(table),
            tuple(_label_scores(columns, lambda c: c.truth, table.reference_truth)),
        ),
        Group(
            "Against PyTorch's labels",
            "percent; no truth needed",
            tuple(
                replace(row, changes=())
                for row in _label_scores(columns, lambda c: c.beside_reference, None)
            ),
        ),
    ]


def _scored_on(table: PrecisionTable) -> str:
    return f"percent, {counted(table.pictures, 'picture')}; beside it the change in points"


def _label_scores(
    columns: Sequence[PrecisionColumn],
    of: Callable[[PrecisionColumn], LabelFigures | None],
    reference: LabelFigures | None,
) -> list[ViewRow]:
    def miou(column: PrecisionColumn) -> float | None:
        figures = of(column)
        return None if figures is None else figures.miou

    rows = _scored("mIoU", columns, miou, reference.miou if reference else None)
    for band in ("2 px", "2 %"):

        def boundary(column: PrecisionColumn, band: str = band) -> float | None:
            figures = of(column)
            return None if figures is None else figures.boundary_iou.get(band)

        known = reference.boundary_iou.get(band) if reference else None
        rows += _scored(f"boundary IoU, {band}", columns, boundary, known)
    return rows


def _detections(table: PrecisionTable) -> list[Group]:
    columns = table.columns
    scores: list[ViewRow] = []
    reference = {row.measure: row.ap for row in table.reference_accuracy}
    for measure in ("box", "mask", "boundary"):

        def average(column: PrecisionColumn, measure: str = measure) -> float | None:
            return next((row.ap for row in column.accuracy if row.measure == measure), None)

        scores += _scored(f"{measure} AP", columns, average, reference.get(measure))
    return [
        Group(
            "Average precision against the truth",
            _scored_on(table),
            tuple(scores),
        ),
        Group(
            "Detections beside PyTorch's",
            "matched by class and an overlap of at least one half",
            tuple(_matches(columns, lambda c: c.found_reference)),
        ),
        Group("Detections beside fp32's", "", tuple(_matches(columns, lambda c: c.found_fp32))),
    ]


def _matches(
    columns: Sequence[PrecisionColumn], of: Callable[[PrecisionColumn], MatchFigures | None]
) -> list[ViewRow]:
    def told(how: Callable[[MatchFigures], str]) -> Callable[[PrecisionColumn], str]:
        def cell(column: PrecisionColumn) -> str:
            found = of(column)
            return NONE if found is None else how(found)

        return cell

    return (
        _row("matched", columns, told(lambda m: f"{m.matched:,}"))
        + _row("only here, only there", columns, told(lambda m: f"{m.only_here}, {m.only_there}"))
        + _row("difference of a box, median, px", columns, told(lambda m: small(m.box_median_px)))
        + _row("difference of a box, largest, px", columns, told(lambda m: small(m.box_px)))
        + _row("mask IoU, mean", columns, told(lambda m: overlap(m.mask_iou_mean)))
        + _row("mask IoU, least", columns, told(lambda m: overlap(m.mask_iou_min)))
    )


def _points(table: PrecisionTable) -> Group:
    columns = table.columns
    steps = sorted({row.step for column in columns for row in column.points})
    rows: list[ViewRow] = []
    for step in steps:

        def told(
            how: Callable[[StepOverlap], str], step: int = step
        ) -> Callable[[PrecisionColumn], str]:
            def cell(column: PrecisionColumn) -> str:
                found = next((row for row in column.points if row.step == step), None)
                return NONE if found is None else how(found)

            return cell

        known = next(row for c in columns for row in c.points if row.step == step)
        rows += _row(
            f"step {step}, {known.k:,} points", columns, told(lambda row: percent(row.share, 2))
        )
        rows += _row(f"step {step}, Jaccard", columns, told(lambda row: f"{row.jaccard:.3f}"))
    where = "" if table.task == "semantic" else ", on the FP32 graph's boxes"
    return Group(
        "Points chosen for refinement",
        f"share of the FP32 graph's points that this precision chose too, over "
        f"{counted(table.stage_pictures, 'picture')}{where}",
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
        _row("computed by", columns, by, "PyTorch")
        + _row("graph", columns, lambda c: _megabytes(c.graph_bytes))
        + _row("engines", columns, engines)
        + _row("layers in INT8", columns, lambda c: _count(c.int8_layers))
        + _row("FLOPs in INT8, of those meant", columns, lambda c: percent(c.int8_flops, 2))
        + _row("layers left out of INT8", columns, lambda c: _count(len(c.left_out)))
        + _row("layers kept in FP32", columns, lambda c: _count(len(c.fp32_layers)))
        + _row("all other layers", columns, lambda c: (c.fallback or NONE).upper())
        + _row("calibration", columns, calibration)
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

    return Group("Limits", "", tuple(_row("held to its limits", table.columns, cell)))


def _hundredths(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.2f}"


def _points_apart(change: float) -> str:
    text = f"{100 * change:+.2f}"
    return "±0" if float(text) == 0 else text.replace("-", MINUS)


def _megabytes(size: int | None) -> str:
    return NONE if not size else f"{size / 1e6:.1f} MB"


def _count(number: int) -> str:
    return f"{number:,}" if number else NONE
