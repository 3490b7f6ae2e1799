"""`compare --precision` of an instance bundle: the detections of every precision.

Every precision finds its own detections; stages are compared on the FP32 graph's boxes (see
:mod:`pointrend_deploy.parity.instance.same_boxes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.columns import Columns, Runs, described, table_of
from pointrend_deploy.parity.comparison import Batch
from pointrend_deploy.parity.gates import cautions, drop_gates, readable_gate
from pointrend_deploy.parity.instance.masks import overlap
from pointrend_deploy.parity.instance.matching import match
from pointrend_deploy.parity.instance.picture import Compared
from pointrend_deploy.parity.instance.same_boxes import SameBoxes
from pointrend_deploy.parity.noise import STAGE_PICTURES, StageSums
from pointrend_deploy.parity.record.detections import AccuracyRow
from pointrend_deploy.parity.record.intervals import ScoreInterval
from pointrend_deploy.parity.record.precisions import MatchFigures, PrecisionName, PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.parity.scores.intervals import intervals
from pointrend_deploy.run.instance.instances import Instances, instances_at_picture_size

Array = npt.NDArray[Any]


class InstanceStages(Protocol):
    """Runs the graphs of all precisions on the FP32 graph's proposals and boxes."""

    def __call__(
        self, inputs: Mapping[str, Array], used: int
    ) -> Mapping[PrecisionName, Mapping[str, Array]]:
        """Return the stages by precision, then by name in network order.

        Args:
            inputs: a batch, by name.
            used: number of its rows that contain a picture.
        """


@dataclass
class Matches:
    """Sums over pictures of detections beside another side's."""

    matched: int = 0
    only_here: int = 0
    only_there: int = 0
    boxes_px: list[float] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    box_px_at: str | None = None
    mask_iou_min_at: str | None = None

    def add(self, picture: str, ours: Instances, theirs: Instances) -> None:
        """Count one picture.

        Args:
            picture: its name.
            ours: this side's detections at its size.
            theirs: the other side's.
        """
        found = match(
            ours.boxes, ours.classes, ours.scores, theirs.boxes, theirs.classes, theirs.scores
        )
        self.matched += len(found.pairs)
        self.only_here += len(found.only_a)
        self.only_there += len(found.only_b)
        left, right = found.pairs.T
        apart = np.abs(ours.boxes[left] - theirs.boxes[right]).max(axis=1).tolist()
        if max(apart, default=-1.0) > max(self.boxes_px, default=-1.0):
            self.box_px_at = picture
        self.boxes_px += apart
        overlaps = [overlap(ours.patches[int(i)], theirs.patches[int(j)]) for i, j in found.pairs]
        ious = [both / union for both, union in overlaps if union]
        if min(ious, default=2.0) < min(self.ious, default=2.0):
            self.mask_iou_min_at = picture
        self.ious += ious

    def figures(self) -> MatchFigures:
        """Return the figures of all pictures."""
        return MatchFigures(
            matched=self.matched,
            only_here=self.only_here,
            only_there=self.only_there,
            box_px=max(self.boxes_px, default=None),
            box_median_px=float(np.median(self.boxes_px)) if self.boxes_px else None,
            mask_iou_mean=float(np.mean(self.ious)) if self.ious else None,
            mask_iou_min=min(self.ious, default=None),
            box_px_at=self.box_px_at,
            mask_iou_min_at=self.mask_iou_min_at,
        )


@dataclass
class InstanceColumn:
    """Sums of one precision over pictures.

    Attributes:
        reference, fp32: its detections beside PyTorch's and the FP32 column's.
        sums: its stages beside the FP32 graph's.
        unreadable: pictures whose answers cannot be right, each with the reason.
    """

    reference: Matches = field(default_factory=Matches)
    fp32: Matches = field(default_factory=Matches)
    sums: StageSums = field(default_factory=StageSums)
    unreadable: list[str] = field(default_factory=list)


class InstanceColumns:
    """Runs every other precision on the batches of a comparison, and sums up its figures.

    Args:
        manifest: the bundle's manifest.
        runners: by precision, without fp32.
        stages: gives the stages of all precisions; None where engines run, which give none.
        scorer: scores the precisions against the truth; the comparison adds fp32 to it, as
            ``bundle``. None without a truth.
        most: number of pictures whose stages are compared.
    """

    def __init__(
        self,
        manifest: Manifest,
        runners: Mapping[PrecisionName, Runs],
        stages: InstanceStages | None,
        scorer: Scorer | None = None,
        most: int = STAGE_PICTURES,
    ) -> None:
        self._manifest, self._runners, self._stages = manifest, runners, stages
        self._scorer, self._most = scorer, most
        names: list[PrecisionName] = ["fp32", *runners]
        self.columns = {name: InstanceColumn() for name in names}
        self.staged = 0

    def __call__(self, batch: Batch[Compared]) -> None:
        """Count one batch of the comparison."""
        for seen in batch.pictures:
            fp32 = self.columns["fp32"].reference
            fp32.add(seen.picture.name, seen.bundle, seen.reference)
        for name, runner in self._runners.items():
            outputs = runner.infer(batch.inputs)
            for row, seen in enumerate(batch.pictures):
                self._count(name, {key: value[row] for key, value in outputs.items()}, seen)
        if self._stages is not None and self._runners and self.staged < self._most:
            self._compare_stages(batch)

    def accuracy(self, name: PrecisionName) -> tuple[AccuracyRow, ...]:
        """Return the average precision of a precision; empty for fp32 and without a truth."""
        if self._scorer is None or name == "fp32":
            return ()
        return self._scorer.rows((name,))

    def intervals(self, name: PrecisionName) -> tuple[ScoreInterval, ...]:
        """Return how far a precision's scores, and their change beside fp32's, scatter.

        It is empty for fp32 and without a truth.
        """
        if self._scorer is None or name == "fp32":
            return ()
        return intervals(self._scorer.samples(name), self._scorer.samples("bundle"))

    def _count(self, name: PrecisionName, rows: Mapping[str, Array], seen: Compared) -> None:
        column = self.columns[name]
        recipe, export = self._manifest.instances
        hw = seen.fitted.fitted_hw, seen.fitted.picture_hw
        try:
            ours = instances_at_picture_size(rows, export.masks, *hw, recipe.num_classes)
        except DeployError as error:
            column.unreadable.append(f"{seen.picture.name}: {error.message}")
            nothing = {**rows, "num_detections": np.array(0)}
            ours = instances_at_picture_size(nothing, export.masks, *hw, recipe.num_classes)
        column.reference.add(seen.picture.name, ours, seen.reference)
        column.fp32.add(seen.picture.name, ours, seen.bundle)
        if self._scorer is not None and seen.picture.image_id is not None:
            self._scorer.add(seen.picture.image_id, {name: ours})

    def _compare_stages(self, batch: Batch[Compared]) -> None:
        assert self._stages is not None
        used = len(batch.pictures)
        stages = self._stages(batch.inputs, used)
        for name in self._runners:
            self.columns[name].sums.add(stages["fp32"], stages[name])
        self.staged += used


def instance_columns(columns: Columns, scorer: Scorer | None) -> InstanceColumns:
    """Return what counts every precision's detections during a comparison.

    Args:
        columns: the opened runners.
        scorer: scores every side of the comparison; None without a truth.
    """
    manifest = columns.bundle.manifest
    stages = None
    if not columns.stages_note and columns.others:
        stages = SameBoxes(columns.bundle, columns.names)
    return InstanceColumns(manifest, columns.others, stages, scorer)


def instance_table(columns: Columns, found: InstanceColumns, run: Run) -> PrecisionTable:
    """Return the table of an instance bundle.

    Args:
        columns: the opened runners.
        found: their figures.
        run: the FP32 column beside the reference.
    """
    fp32 = tuple(row for row in run.accuracy if row.prediction == "bundle")
    made = []
    for name in columns.names:
        own = found.columns[name]
        accuracy = fp32 if name == "fp32" else found.accuracy(name)
        gates = drop_gates(name, _scores(fp32), _scores(accuracy))
        if name != "fp32":
            gates += (readable_gate(len(own.unreadable)),)
        column = msgspec.structs.replace(
            described(columns, name),
            found_reference=own.reference.figures(),
            found_fp32=None if name == "fp32" else own.fp32.figures(),
            accuracy=accuracy,
            intervals=run.intervals if name == "fp32" else found.intervals(name),
            points=own.sums.points(),
            stages=own.sums.stages(),
            unreadable=tuple(own.unreadable),
            gates=gates,
        )
        made.append(msgspec.structs.replace(column, cautions=cautions(column)))
    options = None if run.truth is not None else "--coco or --labels"
    return msgspec.structs.replace(
        table_of(run, "instance", made, found.staged, options),
        reference_accuracy=tuple(row for row in run.accuracy if row.prediction == "reference"),
    )


def _scores(rows: Sequence[AccuracyRow]) -> dict[str, float | None]:
    return {f"{row.measure} AP": row.ap for row in rows}
