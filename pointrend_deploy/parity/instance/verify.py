"""An instance graph's answers compared with the PyTorch reference on the same input, in order.

First come the features, then proposals and detections as sets. The reference then repeats the mask
part on the graph's own boxes and classes, so that a difference there comes from the mask part
alone. Last come the masks in the picture, where the reference uses its own boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.forms import MaskForm
from pointrend_deploy.parity.comparison import VerificationResult
from pointrend_deploy.parity.instance.boxes import (
    Detections,
    Outcome,
    box_rows,
    detections_outcome,
    proposals_outcome,
)
from pointrend_deploy.parity.instance.masks import (
    RoIs,
    compare_mask_stages,
    masks_rows,
    overlaps_of,
    rest_is_zero,
)
from pointrend_deploy.parity.instance.selection import Pool
from pointrend_deploy.parity.record.detections import DetectionsRow
from pointrend_deploy.parity.record.runs import Gate, PointsRow, StageRow
from pointrend_deploy.parity.subdivision.stages import compare_stage, difference_gate
from pointrend_deploy.parity.tensors import missing

Array = npt.NDArray[Any]


REQUIRED = ("proposals", "proposal_count", "num_detections", "boxes", "scores", "classes")
"""Outputs without which no boxes can be compared."""


class PictureReference(Protocol):
    """The reference's answers for one picture of the batch."""

    @property
    def features(self) -> Mapping[str, Array]:
        """Pyramid levels (1, C, h, w) by name."""

    @property
    def proposals(self) -> Array:
        """(P, 4) in pixels of the canvas."""

    @property
    def fitted_hw(self) -> tuple[int, int]:
        """Height and width of the picture on the canvas."""

    def proposal_pool(self) -> Pool:
        """Give the candidates that the proposals were chosen from."""

    def detections(self, proposals: Array) -> tuple[Detections, Callable[[], Pool]]:
        """Detect on (P, 4) proposals; also give the candidates the detections are chosen from."""

    def mask_stages(self, boxes: Array, classes: Array) -> dict[str, Array]:
        """Compute the mask part's stages on (R, 4) boxes, R >= 1, of (R,) classes."""


@dataclass(frozen=True)
class InstanceVerification(VerificationResult):
    """The result for an instance graph.

    Attributes:
        detections: figures on the detections of both sides.
        notes: what a reader should know besides, a sentence each.
    """

    detections: DetectionsRow
    notes: tuple[str, ...]


def verify_instances(
    references: Sequence[PictureReference],
    outputs: Mapping[str, Array],
    rois: RoIs,
    form: MaskForm,
    given: RoIs | None = None,
    not_computed: Collection[str] = (),
) -> InstanceVerification:
    """Compare a graph's outputs and stages with the reference's.

    Args:
        references: one for each picture of the batch.
        outputs: ``num_detections`` (N,), ``boxes`` (N, D, 4), ``scores`` and ``classes`` (N, D),
            ``proposals`` (N, P, 4), ``proposal_count`` (N,), the pyramid levels (N, C, h, w) and,
            where the graph gives them as a batch, ``masks`` (N, D, S, S).
        rois: the graph's masks of its own detections.
        form: of its masks.
        given: the graph's masks of further boxes, which were given to its mask part.
        not_computed: pyramid levels that no head reads; the graph may lack them.

    Returns:
        A result that passes when everything agrees. A stage the graph lacks fails. Where there was
        no mask to compare, a note says so.
    """
    stages = _features(references, outputs, not_computed)
    held = [difference_gate(row) for row in stages]
    boxes = _Boxes(references, outputs)
    stages += boxes.rows
    held += boxes.gates
    chosen: list[PointsRow] = []
    exercised = [each for each in (rois, given) if each is not None and len(each.boxes)]
    overlaps: list[tuple[int, int]] = []
    notes = list(boxes.notes)
    if boxes.sound and exercised:
        repeated = [_of_reference(references, each) for each in exercised]
        parts = compare_mask_stages(
            _joined(repeated), _joined([dict(each.stages) for each in exercised])
        )
        stages += parts.stages
        held += parts.gates
        chosen = parts.points
        if parts.stages[-1]:  # wrong logits have a row above; in the picture they prove nothing
            overlaps = overlaps_of(rois, boxes.pairs(), boxes.masks_of_reference())
    if boxes.sound:
        row, more = masks_rows(exercised, form, overlaps, rest_is_zero(outputs))
        stages.append(row)
        held += more
    if not exercised:
        notes.append(
            "masks were not verified: the model detects nothing on the verification pictures; "
            "--verify-images with pictures it knows closes the gap"
        )
    elif not len(rois.boxes):
        notes.append(
            "the model detects nothing on the verification pictures: masks were verified on "
            f"{len(exercised[0].boxes)} boxes taken from its proposals"
        )
    return InstanceVerification(
        tuple(stages), tuple(chosen), tuple(held), boxes.summary(overlaps), tuple(notes)
    )


class _Boxes:
    """Proposals and detections of all pictures, compared; rows, gates and notes on them."""

    def __init__(
        self, references: Sequence[PictureReference], outputs: Mapping[str, Array]
    ) -> None:
        self._references = references
        self.rows: list[StageRow] = []
        self.gates: list[Gate] = []
        self.notes: list[str] = []
        self._found: list[Outcome] = []
        self._theirs: list[Detections] = []
        lacking = [name for name in REQUIRED if name not in outputs]
        if lacking:
            self.rows = [missing(name, np.zeros(0)) for name in lacking]
            return
        used = self._compare_proposals(outputs)
        self._compare_detections(outputs, used)

    @property
    def sound(self) -> bool:
        """Whether the detections agree, so that their masks can be compared."""
        return bool(self._found) and not any(outcome.problems for outcome in self._found)

    def _compare_proposals(self, outputs: Mapping[str, Array]) -> list[Array]:
        """Add the row of the proposals; return (P, 4) a picture for the reference to detect on."""
        boxes, counts = outputs["proposals"], outputs["proposal_count"]
        outcomes, used = [], []
        for index, reference in enumerate(self._references):
            count = int(counts[index])
            outcome = proposals_outcome(
                reference.proposals, boxes[index], count, reference.proposal_pool
            )
            outcomes.append(outcome)
            swapped = outcome.strays and not outcome.problems
            used.append(boxes[index][:count] if swapped else reference.proposals)
        strays = sum(outcome.strays for outcome in outcomes)
        if strays and not any(outcome.problems for outcome in outcomes):
            self.notes.append(
                f"{strays} proposals differ, and the check of near ties explains them all; in "
                "those pictures the detections were compared on the graph's own proposals"
            )
        self._add("proposals", outcomes, boxes.shape[1])
        return used

    def _compare_detections(self, outputs: Mapping[str, Array], used: Sequence[Array]) -> None:
        for index, reference in enumerate(self._references):
            theirs, pool = reference.detections(used[index])
            ours = Detections(*(outputs[name][index] for name in ("boxes", "scores", "classes")))
            count = int(outputs["num_detections"][index])
            self._found.append(detections_outcome(theirs, ours, count, pool))
            self._theirs.append(theirs)
        self._counts = [int(count) for count in outputs["num_detections"]]
        strays = sum(outcome.strays for outcome in self._found)
        if strays and self.sound:
            self.notes.append(
                f"{strays} detections differ, and the check of near ties explains them all"
            )
        self._add("detections", self._found, outputs["boxes"].shape[1])

    def _add(self, name: Any, outcomes: Sequence[Outcome], most: int) -> None:
        row, more = box_rows(name, outcomes, most)
        self.rows.append(row)
        self.gates += more

    def pairs(self) -> list[npt.NDArray[np.int64]]:
        """Give the matched detections: (M, 2) a picture, row of the graph, row of the reference."""
        return [outcome.pairs for outcome in self._found]

    def masks_of_reference(self) -> list[tuple[tuple[int, int], Array, Array]]:
        """Give for each picture its size, the reference's boxes (R, 4) and logits (R, S, S)."""
        found = []
        for reference, theirs in zip(self._references, self._theirs, strict=True):
            logits = np.zeros((0, 1, 1), np.float32)
            if len(theirs.boxes):
                stages = reference.mask_stages(theirs.boxes, theirs.classes)
                logits = stages["mask_logits"][:, 0]
            found.append((reference.fitted_hw, theirs.boxes, logits))
        return found

    def summary(self, overlaps: Sequence[tuple[int, int]]) -> DetectionsRow:
        """Sum up the detections and the ``overlaps`` of their masks in a few figures."""
        matched = [len(outcome.pairs) for outcome in self._found]
        if not self._found:
            return DetectionsRow(matched=0, passed=False)
        ours = sum(max(0, count) for count in self._counts) - sum(matched)
        theirs = sum(outcome.reference for outcome in self._found) - sum(matched)
        values = [both / union for both, union in overlaps if union]
        problems = [problem for outcome in self._found for problem in outcome.problems]
        return DetectionsRow(
            matched=sum(matched),
            only_bundle=ours,
            only_reference=theirs,
            explained=0 if problems else ours + theirs,
            box_canvas_px=max(outcome.apart for outcome in self._found),
            score=max(outcome.scores_apart for outcome in self._found),
            mask_iou_mean=float(np.mean(values)) if values else None,
            mask_iou_min=min(values) if values else None,
            unexplained=tuple(problems[:3]),
            passed=not problems,
        )


def _features(
    references: Sequence[PictureReference],
    outputs: Mapping[str, Array],
    not_computed: Collection[str],
) -> list[StageRow]:
    rows = []
    for name in references[0].features:
        expected = np.concatenate([reference.features[name] for reference in references])
        found = outputs.get(name)
        if found is not None or name not in not_computed:
            rows.append(compare_stage(name, expected, found))
    return rows


def _of_reference(references: Sequence[PictureReference], rois: RoIs) -> dict[str, Array]:
    return _joined(
        [
            references[int(picture)].mask_stages(
                rois.boxes[rois.pictures == picture], rois.classes[rois.pictures == picture]
            )
            for picture in np.unique(rois.pictures)
        ]
    )


def _joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Join the stages of several sets of RoIs; a stage that one of them lacks is left out."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
