"""The figures that stand large at the head of an instance bundle's report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.figures import average, overlap, small
from pointrend_deploy.parity.instance_results import AccuracyRow, DetectionsRow


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
