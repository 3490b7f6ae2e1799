"""The first lines of a report: did it pass, and what does that rest on.

MERGED: The figures that stand large at the head of an instance bundle's report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.gates import accuracy_gates
from pointrend_deploy.parity.record.detections import AccuracyRow, DetectionsRow
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import MetricRow, Parity, Run
from pointrend_deploy.report.figures import average, overlap, percent, score, small


@dataclass(frozen=True)
class Verdict:
    """Status, one sentence, more sentences, and the figures that carry it."""

    status: Literal["passed", "failed", "not compared"]
    sentence: str
    details: tuple[str, ...]
    facts: tuple[Fact, ...]


def verdict(parity: Parity) -> Verdict:
    """What a record says in a few words; failed as soon as one run failed."""
    if not parity.runs:
        return Verdict(
            "not compared", "This bundle was never held against its PyTorch reference.", (), ()
        )
    details = tuple(_tell(name, run) for name, run in parity.runs.items())
    details += _tell_precisions(parity.precisions)
    failed = next((run for run in parity.runs.values() if not run), None)
    facts = tuple(_facts(parity))
    if failed is None and not (parity.precisions is None or parity.precisions):
        lost = "A lower precision of this bundle loses more than its limits allow."
        return Verdict("failed", lost, details, facts)
    if failed is None:
        return Verdict(
            "passed", "This bundle computes what its PyTorch reference computes.", details, facts
        )
    where = failed.first_divergent
    sentence = "This bundle differs from its PyTorch reference" + (
        f", first at stage {where}." if where else "."
    )
    return Verdict("failed", sentence, details, facts)


def _tell(name: str, run: Run) -> str:
    when = "At export" if name == "export" else f"Over {_pictures(run)}"
    row = next((stage for stage in run.stages if not stage), None)
    skipped = f" Left out, as not readable: {len(run.skipped)}." if run.skipped else ""
    candidate, reference = runner_name(run.candidate), runner_name(run.reference)
    if row is not None:
        return f"{when}, {candidate} fails at {row.name}: {row.problem}.{skipped}"
    gate = next((gate for gate in run.gates if not gate), None)
    if gate is not None:
        return f"{when}, {candidate} fails the gate “{gate.name}” of {gate.stage}.{skipped}"
    return (
        f"{when}, {candidate} agrees with {reference} in {_what(run)}, within every tolerance."
        f"{skipped}"
    )


def _tell_precisions(table: PrecisionTable | None) -> tuple[str, ...]:
    """A sentence for every precision beside fp32."""
    found = []
    for column in table.columns if table is not None else ():
        failed = [gate.name for gate in column.gates if not gate]
        how = " in ONNX Runtime's simulation" if column.simulated else ""
        if failed:
            found.append(f"{column.precision}{how} fails: {', '.join(failed)}.")
        elif column.precision != "fp32" and accuracy_gates(column):
            found.append(f"{column.precision}{how} keeps its accuracy within every limit.")
        elif column.precision != "fp32":
            found.append(f"{column.precision}{how} was compared without limits on its accuracy.")
    return tuple(found)


def _what(run: Run) -> str:
    if [stage.name for stage in run.stages] == ["detections", "masks"]:
        return "its detections and their masks"
    held = len(run.stages)
    return "its labels" if held == 1 else f"all {held} stages"


def runner_name(name: str) -> str:
    """A runner as a reader knows it."""
    return {"onnx": "ONNX Runtime", "torch": "PyTorch", "tensorrt": "TensorRT"}.get(name, name)


def _pictures(run: Run) -> str:
    return f"{run.pictures} picture{'' if run.pictures == 1 else 's'}"


def _facts(parity: Parity) -> list[Fact]:
    found = []
    run = parity.runs.get("compare", next(iter(parity.runs.values())))
    if run.detections is not None:
        return instance_facts(run.detections, run.accuracy)
    labels = next((stage for stage in run.stages if stage.kind == "labels"), None)
    if labels is not None:
        different = round((1 - (labels.agreement or 0.0)) * labels.compared)
        found.append(
            Fact(
                percent(labels.agreement),
                "labels agree",
                f"{different:,} of {labels.compared:,} pixels of the network's canvas differ",
            )
        )
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


@dataclass(frozen=True)
class Fact:
    """A figure to stand large: its value, what it is, and one line below."""

    value: str
    name: str
    note: str


def instance_facts(found: DetectionsRow, accuracy: Sequence[AccuracyRow]) -> list[Fact]:
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
                f"of the network's input; the limit is {gates.BOXES.limit}",
            )
        )
    if found.mask_iou_mean is not None:
        facts.append(
            Fact(
                overlap(found.mask_iou_mean),
                "IoU of the masks, on average",
                f"the least is {overlap(found.mask_iou_min)}",
            )
        )
    for measure in ("mask", "boundary"):
        rows = {row.prediction: row for row in accuracy if row.measure == measure}
        if "bundle" in rows and "reference" in rows:
            facts.append(
                Fact(
                    average(rows["bundle"].ap),
                    f"{measure} AP",
                    f"PyTorch {average(rows['reference'].ap)}",
                )
            )
    return facts
