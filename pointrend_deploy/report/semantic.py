"""How the figures of semantic bundles are shown: labels, mIoU and boundary IoU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.record.precisions import LabelFigures, PrecisionColumn, PrecisionTable
from pointrend_deploy.parity.record.runs import MetricRow, Parity, Run
from pointrend_deploy.report.figures import (
    PREDICTION_NAMES,
    Fact,
    bar_chart,
    percent,
    plain_percent,
    right_aligned,
    score,
    small,
)
from pointrend_deploy.report.gallery.tiles import Gallery
from pointrend_deploy.report.precision_rows import (
    Group,
    ViewRow,
    figure_row,
    score_row,
    scored_on,
)


class SemanticReport:
    """See :class:`pointrend_deploy.report.task.ReportTask`."""

    folder = "semantic"
    answers = "label maps"
    truth = "label maps"
    truth_option = "--labels LABELS"
    points_note = ""
    many_pictures = (
        "Each row is its worst picture; label agreement is over all pixels of the network's canvas "
        "that show a picture."
    )
    boundary_note = (
        "Boundary IoU counts only the inner band of each class's mask, as wide as the column says "
        "(Cheng et al., CVPR 2021)."
    )
    worst_note = (
        "First come pictures whose labels differ from PyTorch's by more than the limit, then those "
        "with the most wrong pixels (without a truth: the most that differ from PyTorch's)."
    )

    def describe(self, manifest: Manifest) -> str:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return ""

    def agrees_in(self, run: Run) -> str:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return "its labels" if len(run.stages) == 1 else f"all {len(run.stages)} stages"

    def facts(self, parity: Parity, run: Run) -> list[Fact]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return _facts(parity, run)

    def scores(self, run: Run | None) -> dict[str, Any]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        truth, mutual = _against(run, "truth"), _against(run, "reference")
        return {
            "scored": bool(truth or mutual),
            "labels_from": None if run is None else run.labels_from,
            "truth": truth,
            "mutual": mutual,
            "averaged": averaged_over(truth or mutual),
            "bands": list(truth[0].boundary_iou) if truth else [],
            "chart": _chart(truth) if truth else "",
        }

    def pictures(self, run: Run) -> Sequence[Any]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return run.per_picture

    def score_groups(self, table: PrecisionTable) -> list[Group]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        columns = table.columns
        compared = columns[0].labels_compared
        agree = figure_row(
            "the same as PyTorch", columns, lambda c: percent(c.agrees_reference), "100 %"
        ) + figure_row("the same as fp32", columns, lambda c: percent(c.agrees_fp32))
        return [
            Group(
                "Labels",
                f"of {compared:,} pixels of the network's canvas that show a picture",
                tuple(agree),
            ),
            Group(
                "Against the truth",
                scored_on(table),
                tuple(_label_scores(columns, lambda c: c.truth, table.reference_truth)),
            ),
            Group(
                "Against PyTorch's labels",
                "percent; no truth needed",
                tuple(
                    replace(row, changes=(), intervals=())
                    for row in _label_scores(columns, lambda c: c.beside_reference, None)
                ),
            ),
        ]

    def lines(self, run: Run) -> list[str]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return _lines(run)

    def gallery(self, manifest: Manifest) -> Gallery:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        from pointrend_deploy.report.gallery.semantic import LabelGallery

        return LabelGallery(manifest)

    def unexplained(self, run: Run) -> tuple[str, ...]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return ()


def _against(run: Run | None, against: str) -> list[MetricRow]:
    # a failed run is false in a condition, and its scores are wanted most of all
    return [] if run is None else [row for row in run.metrics if row.against == against]


def _chart(truth: Sequence[MetricRow]) -> str:
    return bar_chart(
        ["mIoU", *(f"boundary, {band}" for band in truth[0].boundary_iou)],
        [
            (
                PREDICTION_NAMES.get(row.prediction, row.prediction),
                [row.miou, *row.boundary_iou.values()],
            )
            for row in truth
        ],
        "mIoU and boundary IoU against the truth",
    )


def _facts(parity: Parity, run: Run) -> list[Fact]:
    found = []
    labels = next((stage for stage in run.stages if stage.kind == "labels"), None)
    if labels is not None:
        different = round((1 - (labels.agreement or 0.0)) * labels.compared)
        note = f"{different:,} of {labels.compared:,} pixels of the network's canvas differ"
        least = min(run.per_picture, key=lambda row: row.agreement, default=None)
        if least is not None and least.agreement < 1 and len(run.per_picture) > 1:
            note += f"; least {percent(least.agreement)}, in {least.name}"
        found.append(Fact(percent(labels.agreement), "labels agree", note))
    tensors = [
        stage
        for each in parity.runs.values()
        for stage in each.stages
        if stage.max_abs is not None and stage.limit
    ]
    if tensors:
        worst = max(tensors, key=lambda stage: (stage.max_abs or 0.0) / (stage.limit or 1.0))
        found.append(
            Fact(
                small(worst.max_abs),
                "difference nearest to its limit"
                if (worst.max_abs or 0.0) <= (worst.limit or 0.0)
                else "difference farthest beyond its limit",
                f"at {worst.name}; the limit is {small(worst.limit)}",
            )
        )
    rows = {row.prediction: row for row in run.metrics if row.against == "truth"}
    if "bundle" in rows:
        found += [
            _score("mIoU", rows, lambda row: row.miou),
            _score("boundary IoU, 2 px", rows, lambda row: row.boundary_iou.get("2 px")),
        ]
    return found


def _score(name: str, rows: dict[str, MetricRow], of: Callable[[MetricRow], float | None]) -> Fact:
    beside = [
        f"{who} {score(of(rows[key]))}"
        for key, who in (("reference", "PyTorch"), ("coarse", "coarse head alone"))
        if key in rows
    ]
    return Fact(score(of(rows["bundle"])), name, "; ".join(beside))


def _label_scores(
    columns: Sequence[PrecisionColumn],
    of: Callable[[PrecisionColumn], LabelFigures | None],
    reference: LabelFigures | None,
) -> list[ViewRow]:
    def miou(column: PrecisionColumn) -> float | None:
        figures = of(column)
        return None if figures is None else figures.miou

    rows = score_row("mIoU", columns, miou, reference.miou if reference else None)
    for band in ("2 px", "2 %"):

        def boundary(column: PrecisionColumn, band: str = band) -> float | None:
            figures = of(column)
            return None if figures is None else figures.boundary_iou.get(band)

        known = reference.boundary_iou.get(band) if reference else None
        rows += score_row(f"boundary IoU, {band}", columns, boundary, known)
    return rows


def _lines(run: Run) -> list[str]:
    lines = [f"{'':12}{'against':>11}{'agree':>10}{'mIoU':>8}{'bIoU 2px':>10}{'bIoU 2 %':>10}"]
    for row in run.metrics:
        bands = row.boundary_iou
        cells = [plain_percent(row.agreement, 2), plain_percent(row.miou)]
        cells += [plain_percent(bands.get("2 px")), plain_percent(bands.get("2 %"))]
        shown = right_aligned(cells, (10, 8, 10, 10))
        lines.append(f"{row.prediction:12}{row.against:>11}{shown}")
    averaged = averaged_over(run.metrics)
    return [*lines, averaged] if averaged else lines


def averaged_over(rows: Sequence[MetricRow]) -> str:
    """Say which classes the means are over; empty where no row lists its classes.

    Args:
        rows: of one comparison, those against the truth first.
    """
    classes = next((row.classes for row in rows if row.classes), ())
    if not classes:
        return ""
    whose = "the truth" if rows[0].against == "truth" else "PyTorch"
    over = f"the {sum(each.iou is not None for each in classes)} of {len(classes)} classes"
    return f"mIoU and boundary IoU are means over {over} that {whose} has"
