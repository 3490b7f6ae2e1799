"""An instance bundle beside its PyTorch reference over many pictures, with and without truth.

Both sides get the very same canvas batch. Boxes and scores are compared on the canvas, where the
network answers; masks, and everything scored against a truth, at the picture's own size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.instance.boxes import box_rows
from pointrend_deploy.parity.instance.masks import masks_rows
from pointrend_deploy.parity.instance.picture import Compared, Found, ToCompare, compare_picture
from pointrend_deploy.parity.instance.verify import PictureReference
from pointrend_deploy.parity.record.detections import DetectedPicture, DetectionsRow
from pointrend_deploy.parity.record.runs import Run, Skipped, now
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.pictures.canvas import Fitted, batch_of, fit, from_rgb
from pointrend_deploy.pictures.files import read_picture

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]


class Candidate(Protocol):
    """What a comparison needs of the runner under test."""

    name: str
    bundle: Bundle

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """One call: the five outputs of every instance bundle by name, whatever its layout."""


@dataclass(frozen=True)
class InstanceBatch:
    """A batch as both sides saw and answered it; rows past the pictures are fillers.

    Attributes:
        inputs: of the graph, by name.
        outputs: the candidate's, by name.
        pictures: both sides' answers at each picture's size.
    """

    inputs: dict[str, Array]
    outputs: Mapping[str, Array]
    pictures: tuple[Compared, ...]


def compare_instances(
    candidate: Candidate,
    reference: Callable[[dict[str, Array], int], PictureReference],
    pictures: Sequence[ToCompare],
    scorer: Scorer | None = None,
    versions: Mapping[str, str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    seen: Callable[[Compared], None] | None = None,
    watch: Callable[[InstanceBatch], None] | None = None,
) -> Run:
    """Compare an instance bundle with its reference.

    Args:
        candidate: a runner of the bundle.
        reference: gives the reference of one row of a batch of the manifest's inputs.
        pictures: which.
        scorer: scores both sides against a truth; every picture then has an ``image_id``.
        versions: of what ran, for the record.
        progress: called with pictures done, pictures in all, and the current picture's name.
        seen: called with every picture's answers.
        watch: called with every batch and its pictures' answers.

    Returns:
        A run, truthy when every gate passed; pictures that could not be read are in ``skipped``.

    Raises:
        DeployError: not one picture could be compared.
    """
    started = time.monotonic()
    manifest = candidate.bundle.manifest
    _, export = manifest.instances
    tell = progress or (lambda done, total, name: None)
    found: list[Found] = []
    skipped: list[Skipped] = []
    batch: list[tuple[ToCompare, UInt8, Fitted]] = []

    def finish() -> None:
        fitted = [each[2] for each in batch]
        inputs = batch_of(fitted, manifest)
        outputs = candidate.infer(inputs)
        answers: list[Compared] = []
        for row, (picture, rgb, where) in enumerate(batch):
            rows = {name: array[row] for name, array in outputs.items()}
            one, both = compare_picture(manifest, rows, reference(inputs, row), picture, rgb, where)
            found.append(one)
            if scorer is not None and picture.image_id is not None:
                sides = {"bundle": both.bundle, "reference": both.reference}
                scorer.add(picture.image_id, sides)
            if seen is not None:
                seen(both)
            if watch is not None:
                answers.append(both)
        if watch is not None:
            watch(InstanceBatch(inputs, outputs, tuple(answers)))
        batch.clear()

    for number, picture in enumerate(pictures):
        tell(number, len(pictures), picture.name)
        try:
            rgb = read_picture(picture.path).rgb
            batch.append((picture, rgb, fit(from_rgb(rgb, manifest), manifest)))
        except DeployError as error:
            skipped.append(Skipped(name=picture.name, reason=error.message))
        if len(batch) == manifest.canvas.batch:
            finish()
    if batch:
        finish()
    tell(len(pictures), len(pictures), "")
    if not found:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:3])
        raise DeployError(f"no picture could be compared. {reasons}", "each reason says what to do")
    stage, held = box_rows("detections", [each.outcome for each in found], export.detections)
    overlaps = [each for one in found for each in one.overlaps]
    masks, more = masks_rows([], export.masks, overlaps)
    passed = all(held) and all(more) and bool(stage) and bool(masks)
    together = _together(found, passed)
    if not stage:  # by the pictures' names
        stage = msgspec.structs.replace(stage, problem="; ".join(together.unexplained[:3]))
    stages, all_gates = (stage, masks), (*held, *more)
    return Run(
        kind="compare",
        passed=passed,
        candidate=candidate.name,
        reference="torch",
        created=now(),
        canvas_hw=manifest.canvas.padded_hw,
        first_divergent=next((row.name for row in stages if not row), None),
        pictures=len(found),
        seconds=round(time.monotonic() - started, 3),
        stages=stages,
        gates=all_gates,
        detections=together,
        detected_pictures=tuple(sorted((each.row for each in found), key=_badness, reverse=True)),
        accuracy=scorer.rows() if scorer is not None else (),
        truth=scorer.summary() if scorer is not None else None,
        skipped=tuple(skipped),
        versions=dict(versions or {}),
    )


def _together(found: Sequence[Found], passed: bool) -> DetectionsRow:
    """One row for all pictures: sums of counts, the largest differences."""
    rows = [each.row.detections for each in found]
    values = [both / union for each in found for both, union in each.overlaps if union]

    def largest(of: Callable[[DetectionsRow], float | None]) -> float | None:
        return max((value for value in map(of, rows) if value is not None), default=None)

    return DetectionsRow(
        matched=sum(row.matched for row in rows),
        only_bundle=sum(row.only_bundle for row in rows),
        only_reference=sum(row.only_reference for row in rows),
        explained=sum(row.explained for row in rows),
        box_canvas_px=largest(lambda row: row.box_canvas_px),
        box_picture_px=largest(lambda row: row.box_picture_px),
        score=largest(lambda row: row.score),
        mask_iou_mean=float(np.mean(values)) if values else None,
        mask_iou_min=min(values, default=None),
        unexplained=tuple(
            f"{each.row.name}: {problem}"
            for each in found
            for problem in each.row.detections.unexplained
        )[:5],
        passed=passed,
    )


def _badness(picture: DetectedPicture) -> tuple[bool, int, float, float]:
    row = picture.detections
    strays = row.only_bundle + row.only_reference
    least = 1.0 if row.mask_iou_min is None else row.mask_iou_min
    return not row.passed, strays - row.explained, 1.0 - least, row.box_canvas_px or 0.0
