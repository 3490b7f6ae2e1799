"""An instance engine's detections and masks beside those of its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.forms import MaskForm
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity import gates
from pointrend_deploy.parity.engine_comparison import EngineComparison, Outputs, Sides, unfinite
from pointrend_deploy.parity.instance.masks import overlap, pasted_gates
from pointrend_deploy.parity.instance.matching import match
from pointrend_deploy.parity.record.runs import Gate
from pointrend_deploy.run.instance.instances import (
    Instances,
    instances_at_picture_size,
    probabilities,
)

Array = npt.NDArray[Any]


@dataclass
class _Found:
    """Sums over pictures of one side's detections beside the graph's.

    Attributes:
        total: detections of the side that has more, picture by picture.
        strays: those without a partner that no near tie of scores explains.
        scores_apart: largest difference of the scores of partners.
        overlaps: of the masks of partners, pixels of intersection and of union.
        wrong: answers that cannot be right, a sentence each.
    """

    total: int = 0
    strays: int = 0
    scores_apart: float = 0.0
    overlaps: list[tuple[int, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """Share, 0..1, of the detections that both sides have."""
        return 1.0 - self.strays / self.total if self.total else 1.0

    @property
    def mask_iou(self) -> float | None:
        """Mean IoU of the masks; None where there are none."""
        values = [both / union for both, union in self.overlaps if union]
        return float(np.mean(values)) if values else None


def compare_detections(
    manifest: Manifest, sides: Sides, rois: tuple[Array, Array] | None = None
) -> EngineComparison:
    """Compare detections and masks on the canvas.

    A detection of one side has a partner on the other where class and place agree. In FP32 a
    partner's box and score are equal up to rounding too.

    Args:
        manifest: of the bundle.
        sides: the outputs of both.
        rois: of a split layout, the masks (R, S, S) that graph and engine give for boxes that were
            given to both; None where the detections' own masks were compared.
    """
    _, export = manifest.instances
    fp32 = None
    tolerance = gates.SCORES.limit
    if sides.fp32 is not None:
        fp32 = _beside_graph(manifest, sides, sides.fp32, tolerance, exact=False)
        tolerance = max(tolerance, 2 * fp32.scores_apart)
    found = _beside_graph(manifest, sides, sides.engine, tolerance, exact=sides.fp32 is None)
    if rois is not None:
        try:
            found.overlaps += _overlaps(*rois, export.masks)
        except DeployError as error:
            found.wrong.append(error.message)
    bad = len(found.wrong) + unfinite(sides.graph, sides.engine)
    limit = gates.engine_limit(
        gates.detections_limit(found.total), None if fp32 is None else fp32.agreement
    )
    held: list[Gate] = [
        gates.gate(
            found.wrong[0] if found.wrong else "values that cannot be right",
            "outputs",
            bad,
            "<=",
            0,
            gates.READABLE.reason,
        ),
        gates.gate(
            "share of detections that both have",
            "detections",
            found.agreement,
            ">=",
            limit,
            gates.ENGINE_REASON,
        ),
    ]
    masks = pasted_gates(found.overlaps)
    if fp32 is None:
        held += masks
    elif masks:
        mean = gates.engine_limit(masks[0].limit, fp32.mask_iou or 1.0)
        value, reason = found.mask_iou, gates.ENGINE_REASON
        held.append(gates.gate("mean IoU", "masks", value, ">=", mean, reason))
    note = ""
    if not found.total and rois is None:
        note = "nothing was detected, so no mask was compared: --verify-images PICTURE with objects"
    elif not found.total and rois is not None:
        note = (
            f"nothing was detected, so the masks of {len(rois[0])} given boxes were compared: "
            "--verify-images PICTURE with objects"
        )
    words = f"{found.total} detections"
    return EngineComparison(words, found.total, found.agreement, found.mask_iou, tuple(held), note)


def _beside_graph(
    manifest: Manifest, sides: Sides, other: Outputs, tolerance: float, exact: bool
) -> _Found:
    """Compare detections picture by picture.

    Args:
        manifest: of the bundle.
        sides: has the graph's outputs.
        other: the outputs that are compared with them.
        tolerance: scores this near a bar may lie on either side of it.
        exact: whether partners' boxes and scores are equal up to rounding.
    """
    found = _Found()
    for row, picture in enumerate(sides.pictures):
        theirs = _instances(manifest, sides.graph, row, picture.fitted_hw)
        try:
            ours = _instances(manifest, other, row, picture.fitted_hw)
        except DeployError as error:
            found.wrong.append(error.message)
            continue
        same = match(
            ours.boxes, ours.classes, ours.scores, theirs.boxes, theirs.classes, theirs.scores
        )
        left, right = same.pairs.T
        apart = np.abs(ours.scores[left] - theirs.scores[right])
        moved = np.abs(ours.boxes[left] - theirs.boxes[right]).max(axis=1, initial=0.0)
        near = (
            (apart <= gates.SCORES.limit) & (moved <= gates.BOXES.limit)
            if exact
            else np.ones(len(apart), np.bool_)
        )
        strange = int((~near).sum())
        lost = _unexplained(theirs.scores[same.only_b], _bars(manifest, other, row), tolerance)
        added = _unexplained(ours.scores[same.only_a], _bars(manifest, sides.graph, row), tolerance)
        found.total += max(len(ours), len(theirs))
        found.strays += strange + max(lost, added)
        found.scores_apart = max(found.scores_apart, float(apart.max(initial=0.0)))
        found.overlaps += [
            overlap(ours.patches[int(i)], theirs.patches[int(j)]) for i, j in same.pairs[near]
        ]
    return found


def _instances(manifest: Manifest, outputs: Outputs, row: int, hw: tuple[int, int]) -> Instances:
    recipe, export = manifest.instances
    rows = {name: array[row] for name, array in outputs.items()}
    return instances_at_picture_size(rows, export.masks, hw, hw, recipe.num_classes)


def _bars(manifest: Manifest, outputs: Outputs, row: int) -> list[float]:
    """Scores below which a side has no detection: the threshold, and its last one where full."""
    recipe, export = manifest.instances
    bars = [recipe.box_head.score_threshold]
    if int(outputs["num_detections"][row]) == export.detections:
        bars.append(float(outputs["scores"][row, -1]))
    return bars


def _unexplained(scores: Array, bars: Sequence[float], tolerance: float) -> int:
    """Count the scores that lie clearly above every bar of the side that lacks them."""
    return int((scores > max(bars) + tolerance).sum())


def _overlaps(theirs: Array, ours: Array, form: MaskForm) -> list[tuple[int, int]]:
    """Count cells of intersection and of union of masks (R, S, S) as the outputs have them."""
    a, b = (probabilities(each, form) >= 0.5 for each in (theirs, ours))
    return [(int((x & y).sum()), int((x | y).sum())) for x, y in zip(a, b, strict=True)]
