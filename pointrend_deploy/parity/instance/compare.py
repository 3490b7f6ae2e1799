"""An instance bundle beside its PyTorch reference over many pictures, with and without a truth.

Boxes and scores are compared on the canvas, where the network answers; masks, and everything that
is scored against a truth, at the picture's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.comparison import (
    Batch,
    Candidate,
    Comparison,
    Progress,
    compare_pictures,
    read_fitted,
)
from pointrend_deploy.parity.instance.boxes import box_rows
from pointrend_deploy.parity.instance.masks import masks_rows
from pointrend_deploy.parity.instance.picture import (
    Compared,
    Found,
    Item,
    ToCompare,
    compare_picture,
)
from pointrend_deploy.parity.instance.verify import PictureReference
from pointrend_deploy.parity.record.detections import DetectedPicture, DetectionsRow
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.parity.scores.intervals import intervals

Array = npt.NDArray[Any]
Reference = Callable[[dict[str, Array], int], PictureReference]
"""Gives the reference's answers for one row of a batch of the bundle's inputs."""


class InstanceComparison(Comparison[ToCompare, Item]):
    """Compares detections and masks; see :func:`compare_instances` for the arguments."""

    def __init__(
        self,
        candidate: Candidate,
        reference: Reference,
        scorer: Scorer | None = None,
        seen: Callable[[Compared], None] | None = None,
        watch: Callable[[Batch[Compared]], None] | None = None,
    ) -> None:
        super().__init__(candidate)
        self._reference, self._scorer = reference, scorer
        self._seen, self._watch = seen, watch
        self._found: list[Found] = []

    def read(self, source: ToCompare) -> Item:
        """See :class:`Comparison`."""
        return Item(source, *read_fitted(source.path, self.candidate.bundle))

    def add(
        self, items: Sequence[Item], inputs: dict[str, Array], outputs: dict[str, Array]
    ) -> None:
        """See :class:`Comparison`."""
        answers: list[Compared] = []
        for row, item in enumerate(items):
            rows = {name: array[row] for name, array in outputs.items()}
            manifest = self.candidate.bundle.manifest
            found, both = compare_picture(manifest, rows, self._reference(inputs, row), item)
            self._found.append(found)
            if self._scorer is not None and item.picture.image_id is not None:
                sides = {"bundle": both.bundle, "reference": both.reference}
                self._scorer.add(item.picture.image_id, sides)
            if self._seen is not None:
                self._seen(both)
            if self._watch is not None:  # otherwise one picture's answers are in memory at a time
                answers.append(both)
        if self._watch is not None:
            self._watch(Batch(inputs, outputs, tuple(answers)))

    def conclude(self, run: Run) -> Run:
        """See :class:`Comparison`."""
        _, export = self.candidate.bundle.manifest.instances
        found = self._found
        stage, box_gates = box_rows(
            "detections", [each.outcome for each in found], export.detections
        )
        overlaps = [each for one in found for each in one.overlaps]
        masks, mask_gates = masks_rows([], export.masks, overlaps)
        gates = (*box_gates, *mask_gates)
        together = _together(found, all(gates) and bool(stage) and bool(masks))
        if not stage:  # the problems by the pictures' names
            stage = msgspec.structs.replace(stage, problem="; ".join(together.unexplained[:3]))
        rows = sorted((each.row for each in found), key=_badness, reverse=True)
        scorer = self._scorer
        return msgspec.structs.replace(
            run,
            stages=(stage, masks),
            gates=gates,
            detections=together,
            detected_pictures=tuple(rows),
            accuracy=scorer.rows(("reference", "bundle")) if scorer is not None else (),
            truth=scorer.summary() if scorer is not None else None,
            intervals=()
            if scorer is None
            else intervals(scorer.samples("bundle"), scorer.samples("reference")),
        )


def compare_instances(
    candidate: Candidate,
    reference: Reference,
    pictures: Sequence[ToCompare],
    scorer: Scorer | None = None,
    versions: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    seen: Callable[[Compared], None] | None = None,
    watch: Callable[[Batch[Compared]], None] | None = None,
) -> Run:
    """Compare an instance bundle with its reference.

    Args:
        candidate: a runner of the bundle.
        reference: see :data:`Reference`.
        pictures: the pictures to compare.
        scorer: scores both sides against a truth; every picture then has an ``image_id``.
        versions: of the libraries that run, for the record.
        progress: see :data:`pointrend_deploy.parity.comparison.Progress`.
        seen: called with both sides' answers for every picture.
        watch: called with every batch and both sides' answers for its pictures.

    Returns:
        See :func:`pointrend_deploy.parity.comparison.compare_pictures`.

    Raises:
        DeployError: not one picture could be compared.
    """
    comparison = InstanceComparison(candidate, reference, scorer, seen, watch)
    return compare_pictures(comparison, pictures, versions, progress)


def _together(found: Sequence[Found], passed: bool) -> DetectionsRow:
    """Sum up all pictures in one row: sums of counts, the largest differences."""
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
