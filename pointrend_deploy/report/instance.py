"""How the figures of instance bundles are shown: detections and average precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity import gates
from pointrend_deploy.parity.record.detections import AccuracyRow, DetectionsRow
from pointrend_deploy.parity.record.precisions import MatchFigures, PrecisionColumn, PrecisionTable
from pointrend_deploy.parity.record.runs import Parity, Run
from pointrend_deploy.report.figures import (
    NONE,
    PREDICTION_NAMES,
    Fact,
    average,
    bar_chart,
    counted,
    overlap,
    plain_percent,
    right_aligned,
    shape,
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

MASK_FORMS = {"prob": "probabilities", "prob-u8": "probabilities in 8 bits", "logits": "logits"}
LAYOUTS = {"single": "one graph", "split": "detector and masks in two graphs"}
MEASURE_NAMES = {"box": "boxes", "mask": "masks", "boundary": "boundaries"}


class InstanceReport:
    """See :class:`pointrend_deploy.report.task.ReportTask`."""

    folder = "instance"
    answers = "detections in COCO's form"
    truth = "annotations"
    truth_option = "--coco ANNOTATIONS.json"
    points_note = ", on the FP32 graph's boxes"
    many_pictures = "Figures are over all pictures."
    boundary_note = (
        "Boundary AP takes the smaller of mask IoU and boundary IoU as the overlap, the band being "
        "2 % of the picture's diagonal (Cheng et al., CVPR 2021)."
    )
    worst_note = (
        "First come pictures that differ from PyTorch by more than a limit, then those whose true "
        "objects are covered least by detections of their class (without a truth: those whose "
        "masks are least like PyTorch's)."
    )

    def describe(self, manifest: Manifest) -> str:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        _, export = manifest.instances
        side = export.mask_side
        return (
            f"at most {export.detections} detections, masks of "
            f"{shape((side, side))} "
            f"({MASK_FORMS[export.masks]}), {LAYOUTS[export.layout]}, "
        )

    def agrees_in(self, run: Run) -> str:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        if [stage.name for stage in run.stages] == ["detections", "masks"]:
            return "its detections and their masks"
        return f"all {len(run.stages)} stages"

    def facts(self, parity: Parity, run: Run) -> list[Fact]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return [] if run.detections is None else _facts(run.detections, run)

    def scores(self, run: Run | None) -> dict[str, Any]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        accuracy = () if run is None else run.accuracy
        return {
            "scored": bool(accuracy),
            "accuracy": accuracy,
            "measures": MEASURE_NAMES,
            "known": None if run is None else run.truth,
            "chart": _chart(accuracy) if accuracy else "",
        }

    def pictures(self, run: Run) -> Sequence[Any]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return run.detected_pictures

    def score_groups(self, table: PrecisionTable) -> list[Group]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        columns = table.columns
        scores: list[ViewRow] = []
        reference = {row.measure: row.ap for row in table.reference_accuracy}
        for measure in ("box", "mask", "boundary"):

            def average(column: PrecisionColumn, measure: str = measure) -> float | None:
                return next((row.ap for row in column.accuracy if row.measure == measure), None)

            scores += score_row(f"{measure} AP", columns, average, reference.get(measure))
        return [
            Group(
                "Average precision against the truth",
                scored_on(table),
                tuple(scores),
            ),
            Group(
                "Detections beside PyTorch's",
                "matched by class and an overlap of at least one half",
                tuple(_matches(columns, lambda c: c.found_reference)),
            ),
            Group("Detections beside fp32's", "", tuple(_matches(columns, lambda c: c.found_fp32))),
        ]

    def lines(self, run: Run) -> list[str]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        found = [] if run.detections is None else _detections(run.detections)
        return [*found, *_accuracy(run)]

    def gallery(self, manifest: Manifest) -> Gallery:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        from pointrend_deploy.report.gallery.instance import InstanceGallery

        return InstanceGallery(manifest.instances[0])

    def unexplained(self, run: Run) -> tuple[str, ...]:
        """See :class:`~pointrend_deploy.report.task.ReportTask`."""
        return () if run.detections is None else run.detections.unexplained


def _chart(rows: Sequence[AccuracyRow]) -> str:
    sides = [
        (who, [row for row in rows if row.prediction == who]) for who in ("reference", "bundle")
    ]
    return bar_chart(
        [f"{row.measure} AP" for row in rows if row.prediction == "bundle"],
        [(PREDICTION_NAMES[who], [row.ap for row in own]) for who, own in sides],
        "average precision against the truth",
        first_colour=1,
    )


def _facts(found: DetectionsRow, run: Run) -> list[Fact]:
    """Detections, boxes and masks against the reference; mask and boundary AP where known."""
    expected = found.matched + found.only_reference
    strays = found.only_reference + found.only_bundle
    note = f"{found.only_bundle:,} only in this bundle"
    if strays:
        note += f"; {found.explained} of {strays} that differ are near ties"
    facts = [Fact(f"{found.matched:,} of {expected:,}", "PyTorch's detections found again", note)]
    if found.box_canvas_px is not None:
        facts.append(
            Fact(
                f"{small(found.box_canvas_px)} px",
                "largest difference of a box",
                f"of the network's input{_at(run, 'box_canvas_px', found.box_canvas_px)}; the "
                f"limit is {gates.BOXES.limit}",
            )
        )
    if found.mask_iou_mean is not None:
        facts.append(
            Fact(
                overlap(found.mask_iou_mean),
                "IoU of the masks, on average",
                f"the least is {overlap(found.mask_iou_min)}"
                f"{_at(run, 'mask_iou_min', found.mask_iou_min)}",
            )
        )
    for measure in ("mask", "boundary"):
        rows = {row.prediction: row for row in run.accuracy if row.measure == measure}
        if "bundle" in rows and "reference" in rows:
            facts.append(
                Fact(
                    average(rows["bundle"].ap),
                    f"{measure} AP",
                    f"PyTorch {average(rows['reference'].ap)}",
                )
            )
    return facts


def _at(run: Run, figure: str, value: float | None) -> str:
    """Name the picture that has the worst value of all; empty for a single picture."""
    rows = run.detected_pictures
    at = next((row.name for row in rows if getattr(row.detections, figure) == value), None)
    return "" if value is None or at is None or len(rows) < 2 else f", in {at}"


def _matches(
    columns: Sequence[PrecisionColumn], of: Callable[[PrecisionColumn], MatchFigures | None]
) -> list[ViewRow]:
    figures: dict[str, Callable[[MatchFigures], str]] = {
        "matched": lambda found: f"{found.matched:,}",
        "only here, only there": lambda found: f"{found.only_here}, {found.only_there}",
        "difference of a box, median, px": lambda found: small(found.box_median_px),
        "difference of a box, largest, px": lambda found: small(found.box_px),
        "mask IoU, mean": lambda found: overlap(found.mask_iou_mean),
        "mask IoU, least": lambda found: overlap(found.mask_iou_min),
    }
    rows: list[ViewRow] = []
    for name, text in figures.items():

        def cell(column: PrecisionColumn, text: Callable[[MatchFigures], str] = text) -> str:
            found = of(column)
            return NONE if found is None else text(found)

        rows += figure_row(name, columns, cell)
    return rows


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
        f"{'':10}{'':12}"
        + right_aligned(("AP", "AP50", "AP75", "small", "medium", "large"), (8,) * 6),
    ]
    for row in run.accuracy:
        values = (row.ap, row.ap50, row.ap75, row.small, row.medium, row.large)
        cells = right_aligned([plain_percent(value) for value in values], (8,) * 6)
        lines.append(f"{row.measure:10}{row.prediction:12}{cells}")
    if truth.classes_left_out:
        lines.append(
            f"not scored, as the truth does not list them: {_some(truth.classes_left_out)}"
        )
    return lines


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
