"""The detections of every precision of an instance bundle, picture by picture.

MERGED: `compare --precision` of an instance bundle: stages on the same boxes, and the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.columns import Columns, Runs, described
from pointrend_deploy.parity.gates import drop_gates, readable_gate, ungated
from pointrend_deploy.parity.instance.compare import InstanceBatch
from pointrend_deploy.parity.instance.masks import overlap
from pointrend_deploy.parity.instance.matching import match
from pointrend_deploy.parity.instance.picture import Compared
from pointrend_deploy.parity.instance.same_boxes import SameBoxes
from pointrend_deploy.parity.noise import STAGE_PICTURES, StageSums
from pointrend_deploy.parity.record.detections import AccuracyRow
from pointrend_deploy.parity.record.precisions import MatchFigures, PrecisionName, PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.run.instance.instances import Instances, instances_at_picture_size
from pointrend_deploy.truth.annotations import InstanceTruth

if TYPE_CHECKING:
    pass


Array = npt.NDArray[Any]


class InstanceStages(Protocol):
    """Stages of the graphs of all precisions on the FP32 graph's proposals and boxes."""

    def __call__(
        self, inputs: Mapping[str, Array], used: int
    ) -> Mapping[PrecisionName, Mapping[str, Array]]:
        """Stages by precision, then by name in network order.

        Args:
            inputs: a batch.
            used: rows of it that hold a picture.
        """


@dataclass
class Matches:
    """Sums over pictures of detections beside another side's."""

    matched: int = 0
    only_here: int = 0
    only_there: int = 0
    boxes_px: list[float] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)

    def add(self, ours: Instances, theirs: Instances) -> None:
        """Count one picture, both sides at its size."""
        found = match(
            ours.boxes, ours.classes, ours.scores, theirs.boxes, theirs.classes, theirs.scores
        )
        self.matched += len(found.pairs)
        self.only_here += len(found.only_a)
        self.only_there += len(found.only_b)
        left, right = found.pairs.T
        apart = np.abs(ours.boxes[left] - theirs.boxes[right])
        self.boxes_px += apart.max(axis=1).tolist()
        for i, j in found.pairs:
            both, union = overlap(ours.patches[int(i)], theirs.patches[int(j)])
            if union:
                self.ious.append(both / union)

    def figures(self) -> MatchFigures:
        """What was summed."""
        return MatchFigures(
            matched=self.matched,
            only_here=self.only_here,
            only_there=self.only_there,
            box_px=max(self.boxes_px, default=None),
            box_median_px=float(np.median(self.boxes_px)) if self.boxes_px else None,
            mask_iou_mean=float(np.mean(self.ious)) if self.ious else None,
            mask_iou_min=min(self.ious, default=None),
        )


@dataclass
class InstanceColumn:
    """Sums of one precision over pictures."""

    reference: Matches = field(default_factory=Matches)
    fp32: Matches = field(default_factory=Matches)
    sums: StageSums = field(default_factory=StageSums)
    unreadable: list[str] = field(default_factory=list)


class InstanceColumns:
    """Watches a comparison and runs every other precision on its very batches.

    Args:
        manifest: of the bundle.
        runners: of the precisions beside fp32.
        stages: of the graphs of all precisions; None where engines run.
        scorer: scores every precision beside fp32 against the truth; None without one.
        most: pictures whose stages are compared.
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

    def __call__(self, batch: InstanceBatch) -> None:
        """Take one batch of the comparison."""
        for seen in batch.pictures:
            self.columns["fp32"].reference.add(seen.bundle, seen.reference)
        for name, runner in self._runners.items():
            outputs = runner.infer(batch.inputs)
            for row, seen in enumerate(batch.pictures):
                self._count(name, {key: value[row] for key, value in outputs.items()}, seen)
        if self._stages is not None and self._runners and self.staged < self._most:
            self._compare_stages(batch)

    def accuracy(self, name: PrecisionName) -> tuple[AccuracyRow, ...]:
        """Average precision of a precision beside fp32; empty without a truth."""
        if self._scorer is None or name == "fp32":
            return ()
        return tuple(row for row in self._scores() if row.prediction == name)

    def _scores(self) -> tuple[AccuracyRow, ...]:
        if self._scorer is None:
            return ()
        if not hasattr(self, "_scored"):
            self._scored = self._scorer.rows()
        return self._scored

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
        column.reference.add(ours, seen.reference)
        column.fp32.add(ours, seen.bundle)
        if self._scorer is not None and seen.picture.image_id is not None:
            self._scorer.add(seen.picture.image_id, {name: ours})

    def _compare_stages(self, batch: InstanceBatch) -> None:
        assert self._stages is not None
        used = len(batch.pictures)
        stages = self._stages(batch.inputs, used)
        for name in self._runners:
            self.columns[name].sums.add(stages["fp32"], stages[name])
        self.staged += used


def instance_columns(columns: Columns, truth: InstanceTruth | None) -> InstanceColumns:
    """What watches the comparison of an instance bundle."""
    manifest = columns.bundle.manifest
    recipe, _ = manifest.instances
    stages = None
    if not columns.stages_note and columns.others:
        stages = SameBoxes(columns.bundle, columns.names)
    scorer = None if truth is None or not columns.others else Scorer(truth, recipe)
    return InstanceColumns(manifest, columns.others, stages, scorer)


def instance_table(columns: Columns, found: InstanceColumns, run: Run) -> PrecisionTable:
    """The table of an instance bundle.

    Args:
        columns: what ran.
        found: what it gave.
        run: of the FP32 column beside the reference.
    """
    fp32 = tuple(row for row in run.accuracy if row.prediction == "bundle")
    made, held = [], {}
    for name in columns.names:
        own = found.columns[name]
        accuracy = fp32 if name == "fp32" else found.accuracy(name)
        gates = drop_gates(name, _scores(fp32), _scores(accuracy))
        held[name] = bool(gates)
        if name != "fp32":
            gates += (readable_gate(len(own.unreadable)),)
        made.append(
            msgspec.structs.replace(
                described(columns, name),
                found_reference=own.reference.figures(),
                found_fp32=None if name == "fp32" else own.fp32.figures(),
                accuracy=accuracy,
                points=own.sums.points(),
                stages=own.sums.stages(),
                unreadable=tuple(own.unreadable),
                gates=gates,
            )
        )
    return PrecisionTable(
        task="instance",
        created=run.created,
        pictures=run.pictures,
        stage_pictures=found.staged,
        truth=run.truth is not None,
        columns=tuple(made),
        reference_accuracy=tuple(row for row in run.accuracy if row.prediction == "reference"),
        notes=() if run.truth is not None else ungated(held, "--coco or --labels"),
    )


def _scores(rows: Sequence[AccuracyRow]) -> dict[str, float | None]:
    return {f"{row.measure} AP": row.ap for row in rows}
