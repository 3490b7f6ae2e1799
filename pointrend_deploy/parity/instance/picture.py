"""One picture of a comparison: an instance bundle's answers beside the reference's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity import gates
from pointrend_deploy.parity.instance.boxes import Detections, Outcome, detections_outcome
from pointrend_deploy.parity.instance.masks import overlap, pasted_gates
from pointrend_deploy.parity.instance.matching import match
from pointrend_deploy.parity.instance.proposal_ties import with_other_proposals
from pointrend_deploy.parity.instance.verify import PictureReference
from pointrend_deploy.parity.record.detections import DetectedPicture, DetectionsRow
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.run.instance.instances import (
    Instances,
    instances_at_picture_size,
    probabilities,
)

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ToCompare:
    """A picture: its name in reports, its file, and its id in the truth, if it has one."""

    name: str
    path: Path
    image_id: int | None = None


@dataclass(frozen=True)
class Compared:
    """Both sides' answers for one picture, for whoever draws them.

    Attributes:
        picture: which.
        rgb: its pixels.
        fitted: the picture on the canvas.
        bundle, reference: what each side found, at the picture's size.
        boxes: (R, 4) the reference's boxes on the canvas.
        stages: the reference's stages of the mask part, (R, ...) each; empty where R is 0.
    """

    picture: ToCompare
    rgb: UInt8
    fitted: Fitted
    bundle: Instances
    reference: Instances
    boxes: Array
    stages: Mapping[str, Array]


@dataclass(frozen=True)
class Found:
    """What is kept of a compared picture: its row, its boxes, and pixels of its masks' overlaps."""

    row: DetectedPicture
    outcome: Outcome
    overlaps: list[tuple[int, int]]


def compare_picture(
    manifest: Manifest,
    outputs: Mapping[str, Array],
    reference: PictureReference,
    picture: ToCompare,
    rgb: UInt8,
    fitted: Fitted,
) -> tuple[Found, Compared]:
    """Hold a bundle's answers for one picture against the reference's.

    Args:
        manifest: the bundle's.
        outputs: of the bundle, the picture's row of each.
        reference: the picture's reference.
        picture: which.
        rgb: (H, W, 3) uint8.
        fitted: the picture on the canvas.
    """
    _, export = manifest.instances
    count = int(outputs["num_detections"])
    found = Detections(outputs["boxes"], outputs["scores"], outputs["classes"])
    theirs, pool = reference.detections(reference.proposals)
    outcome = detections_outcome(theirs, found, count, pool)
    if outcome.problems:
        outcome = _other_proposals(outcome, reference, theirs, found, count)
    ours = _of_bundle(manifest, outputs, fitted, outcome)
    stages = reference.mask_stages(theirs.boxes, theirs.classes) if len(theirs.boxes) else {}
    exact = _of_reference(manifest, theirs, stages, fitted, "logits")
    alike = exact  # masks are held like to like; what is scored is the reference's own answer
    if export.masks == "prob-u8":
        alike = _of_reference(manifest, theirs, stages, fitted, "prob-u8")
    pairs = _pairs(outcome, ours, alike, found.boxes[:count], theirs.boxes, fitted)
    overlaps = [overlap(ours.patches[i], alike.patches[j]) for i, j in pairs]
    row = _row(outcome, ours, alike, pairs, overlaps, fitted)
    return (
        Found(
            DetectedPicture(name=picture.name, size_hw=fitted.picture_hw, detections=row),
            outcome,
            overlaps,
        ),
        Compared(picture, rgb, fitted, ours, exact, theirs.boxes, stages),
    )


def _other_proposals(
    outcome: Outcome, reference: PictureReference, theirs: Detections, found: Detections, count: int
) -> Outcome:
    """The same outcome without its problems, where nearly tied proposals explain them all.

    Rounding exchanges a few proposals in a thousand. More differences than that are no ties of
    proposals, however many there are to choose from.
    """
    if outcome.strays > max(gates.FEW, gates.PROPOSALS.limit * len(theirs.boxes)):
        return outcome
    rows, partners = outcome.pairs.T
    boxes = np.abs(found.boxes[rows] - theirs.boxes[partners])
    scores = np.abs(found.scores[rows] - theirs.scores[partners])
    apart = float(boxes.max(initial=0.0))
    if with_other_proposals(reference, found, count, apart).problems:
        return outcome
    return dataclasses.replace(
        outcome, problems=[], apart=apart, scores_apart=float(scores.max(initial=0.0))
    )


def _of_bundle(
    manifest: Manifest, outputs: Mapping[str, Array], fitted: Fitted, outcome: Outcome
) -> Instances:
    """What the bundle found; nothing, and a problem in the outcome, where it cannot be right."""
    recipe, export = manifest.instances
    try:
        return instances_at_picture_size(
            outputs, export.masks, fitted.fitted_hw, fitted.picture_hw, recipe.num_classes
        )
    except DeployError as error:
        outcome.problems.append(error.message)
    rows = {**outputs, "num_detections": np.array(0)}
    return instances_at_picture_size(
        rows, export.masks, fitted.fitted_hw, fitted.picture_hw, recipe.num_classes
    )


def _of_reference(
    manifest: Manifest,
    found: Detections,
    stages: Mapping[str, Array],
    fitted: Fitted,
    form: Literal["logits", "prob-u8"],
) -> Instances:
    recipe, _ = manifest.instances
    masks = stages["mask_logits"][:, 0] if stages else np.zeros((0, 1, 1), np.float32)
    if form == "prob-u8":
        masks = np.round(probabilities(masks, "logits") * 255).astype(np.uint8)
    rows = {
        "num_detections": np.array(len(found.boxes)),
        "boxes": found.boxes,
        "scores": found.scores,
        "classes": found.classes,
        "masks": masks,
    }
    return instances_at_picture_size(
        rows, form, fitted.fitted_hw, fitted.picture_hw, recipe.num_classes
    )


def _pairs(
    outcome: Outcome,
    ours: Instances,
    theirs: Instances,
    canvas_ours: Array,
    canvas_theirs: Array,
    fitted: Fitted,
) -> list[tuple[int, int]]:
    """Rows of detections that are one another, at the picture's size.

    Where all is explained these are the ones that agree: two that took each other's place in a
    near tie may overlap and yet be different objects. Otherwise the best overlaps of a class.
    """
    if outcome.problems:
        same = match(
            ours.boxes, ours.classes, ours.scores, theirs.boxes, theirs.classes, theirs.scores
        )
        return [(int(i), int(j)) for i, j in same.pairs]
    left, right = _places(canvas_ours, fitted), _places(canvas_theirs, fitted)
    return [
        (left[int(i)], right[int(j)])
        for i, j in outcome.pairs
        if int(i) in left and int(j) in right
    ]


def _places(canvas_boxes: Array, fitted: Fitted) -> dict[int, int]:
    """Row at the picture's size by row on the canvas; boxes that are empty there have none."""
    down, across = (a / b for a, b in zip(fitted.picture_hw, fitted.fitted_hw, strict=True))
    boxes = canvas_boxes * np.array([across, down, across, down], np.float32)
    height, width = fitted.picture_hw
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    solid = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    return {int(row): place for place, row in enumerate(solid)}


def _row(
    outcome: Outcome,
    ours: Instances,
    theirs: Instances,
    pairs: Sequence[tuple[int, int]],
    overlaps: Sequence[tuple[int, int]],
    fitted: Fitted,
) -> DetectionsRow:
    left, right = (
        (np.array(side, np.int64) for side in zip(*pairs, strict=True))
        if pairs
        else (
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
        )
    )
    boxes = np.abs(ours.boxes[left] - theirs.boxes[right])
    down, across = (a / b for a, b in zip(fitted.picture_hw, fitted.fitted_hw, strict=True))
    scores = np.abs(ours.scores[left] - theirs.scores[right])
    values = [both / union for both, union in overlaps if union]
    only = (len(ours) - len(pairs), len(theirs) - len(pairs))
    return DetectionsRow(
        matched=len(pairs),
        only_bundle=only[0],
        only_reference=only[1],
        explained=0 if outcome.problems else sum(only),
        box_canvas_px=float((boxes / [across, down, across, down]).max()) if pairs else None,
        box_picture_px=float(boxes.max()) if pairs else None,
        score=float(scores.max()) if pairs else None,
        mask_iou_mean=float(np.mean(values)) if values else None,
        mask_iou_min=min(values) if values else None,
        unexplained=tuple(outcome.problems[:3]),
        passed=not outcome.problems and all(pasted_gates(overlaps)),
    )
