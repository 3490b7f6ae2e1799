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
from pointrend_deploy.truth.annotations import TruthObject

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ToCompare:
    """A picture to compare.

    Attributes:
        name: in reports.
        path: its file.
        image_id: its id in the truth; None without a truth.
        objects: its true objects; None without a truth.
    """

    name: str
    path: Path
    image_id: int | None = None
    objects: tuple[TruthObject, ...] | None = None


@dataclass(frozen=True)
class Item:
    """A picture that was read: its pixels, (H, W, 3) uint8, and its place on the canvas."""

    picture: ToCompare
    rgb: UInt8
    fitted: Fitted


@dataclass(frozen=True)
class Compared:
    """Both sides' answers for one picture.

    Attributes:
        picture: the picture.
        rgb: (H, W, 3) uint8, its pixels.
        fitted: the picture on the canvas.
        bundle, reference: each side's detections, at the picture's size.
        boxes: (R, 4) the reference's boxes in pixels of the canvas.
        stages: the reference's stages of the mask part by name, (R, ...) each; empty where R is 0.
        row: how the two compare.
    """

    picture: ToCompare
    rgb: UInt8
    fitted: Fitted
    bundle: Instances
    reference: Instances
    boxes: Array
    stages: Mapping[str, Array]
    row: DetectedPicture


@dataclass(frozen=True)
class Found:
    """The part of a compared picture that is kept until the end.

    Attributes:
        row: its row in the record.
        outcome: how its boxes compare.
        overlaps: for each matched pair of masks, the pixels of both and the pixels of either.
    """

    row: DetectedPicture
    outcome: Outcome
    overlaps: list[tuple[int, int]]


def compare_picture(
    manifest: Manifest,
    outputs: Mapping[str, Array],
    reference: PictureReference,
    item: Item,
) -> tuple[Found, Compared]:
    """Compare a bundle's answers for one picture with the reference's.

    Args:
        manifest: the bundle's manifest.
        outputs: the picture's row of each of the bundle's outputs, by name.
        reference: the reference's answers for the picture.
        item: the picture.

    Returns:
        What is kept of it, and both sides' answers at its size.
    """
    fitted = item.fitted
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
    alike = exact  # masks are compared in one form; scored is the reference's own answer
    if export.masks == "prob-u8":
        alike = _of_reference(manifest, theirs, stages, fitted, "prob-u8")
    pairs = _pairs(outcome, ours, alike, found.boxes[:count], theirs.boxes, fitted)
    overlaps = [overlap(ours.patches[i], alike.patches[j]) for i, j in pairs]
    compared = _row(outcome, ours, alike, pairs, overlaps, fitted)
    row = DetectedPicture(name=item.picture.name, size_hw=fitted.picture_hw, detections=compared)
    return (
        Found(row, outcome, overlaps),
        Compared(item.picture, item.rgb, fitted, ours, exact, theirs.boxes, stages, row),
    )


def _other_proposals(
    outcome: Outcome, reference: PictureReference, theirs: Detections, found: Detections, count: int
) -> Outcome:
    """Return the outcome without its problems, if nearly tied proposals explain them all.

    Rounding exchanges a few proposals in a thousand. More differences than that are not ties of
    proposals, however many proposals there are to choose from.
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
    """Return the bundle's detections; none, and a problem in the outcome, if they are invalid."""
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
    """Return the rows of detections that are the same object, at the picture's size.

    Where everything is explained these are the detections that agree: two detections that took each
    other's place in a near tie may overlap and still be different objects. Otherwise they are
    matched by class and best overlap.
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
    """Return the row at the picture's size for each row on the canvas.

    Boxes that are empty at the picture's size have no row there.
    """
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
