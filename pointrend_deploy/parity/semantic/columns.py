"""`compare --precision` of a semantic bundle: the label figures of every precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.columns import Columns, Runs, described, table_of
from pointrend_deploy.parity.comparison import Batch
from pointrend_deploy.parity.gates import cautions, drop_gates, label_gates
from pointrend_deploy.parity.noise import STAGE_PICTURES, StageSums
from pointrend_deploy.parity.record.precisions import (
    LabelFigures,
    PrecisionName,
    PrecisionTable,
    StageNoise,
    StepOverlap,
)
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.boundary import LabelScores, number
from pointrend_deploy.parity.scores.intervals import LabelSamples, intervals
from pointrend_deploy.parity.scores.labels import mean_iou
from pointrend_deploy.parity.semantic.compare import ComparedLabels, labels_at
from pointrend_deploy.recipe.semantic import Recipe

Array = npt.NDArray[Any]
Stages = Callable[[dict[str, Array]], Mapping[str, Array]]
"""Runs one precision's graph on a batch of inputs; gives its stages by name, in network order."""


class LabelColumn:
    """Sums of one precision over pictures.

    Args:
        recipe: the bundle's recipe.
        beside: the side whose labels the least equal picture is looked for: ``fp32``, or
            ``reference`` for the FP32 column itself.

    Attributes:
        compared: number of pixels of the canvas that show a picture.
        least: the smallest share (0..1) of a picture's labels that are equal, and its name; None
            before any picture.
        samples: what every picture adds to the scores against the truth.
    """

    def __init__(self, recipe: Recipe, beside: Literal["reference", "fp32"] = "fp32") -> None:
        self._recipe, self._beside = recipe, beside
        self._same = {"reference": 0, "fp32": 0}
        self.compared = 0
        self.least: tuple[float, str] | None = None
        self.samples = LabelSamples()
        self._truth: LabelScores | None = None
        self._mutual = LabelScores(recipe.num_classes)
        self.sums = StageSums()

    def add(self, picture: ComparedLabels, ours: Mapping[str, Array]) -> None:
        """Count one picture.

        Args:
            picture: the FP32 column's and the reference's answers for it.
            ours: this precision's outputs for it by name, (1, ...) each.
        """
        item, theirs = picture.item, picture.stages
        fp32 = canvas_labels(picture.outputs)[0]
        height, width = item.fitted.fitted_hw
        labels = canvas_labels(ours)[0, :height, :width]
        self.compared += labels.size
        expected = canvas_labels(theirs)[0, :height, :width]
        same = {
            "fp32": int((labels == fp32[:height, :width]).sum()),
            "reference": int((labels == expected).sum()),
        }
        for side, count in same.items():
            self._same[side] += count
        share = same[self._beside] / labels.size
        if self.least is None or share < self.least[0]:
            self.least = share, item.pair.name
        logits = "logits" in ours
        found, _ = labels_at(ours, item.fitted, logits)
        self._mutual.add(found, labels_at(theirs, item.fitted, logits)[0])
        if item.truth is not None:
            if self._truth is None:
                classes = self._recipe.classes
                self._truth = LabelScores(self._recipe.num_classes, classes.ignore_label)
            one = LabelScores(self._recipe.num_classes, self._recipe.classes.ignore_label)
            one.add(found, item.truth)
            self._truth.merge(one)
            self.samples.add(one)

    def agreement(self, other: str) -> float | None:
        """Return the share (0..1) of labels that equal another side's; None before any picture.

        Args:
            other: ``reference`` or ``fp32``.
        """
        return self._same[other] / self.compared if self.compared else None

    @property
    def truth(self) -> LabelFigures | None:
        """Scores against the truth; None without one."""
        return None if self._truth is None else _figures(self._truth)

    @property
    def mutual(self) -> LabelFigures:
        """Scores against the reference's labels."""
        return _figures(self._mutual)


class LabelColumns:
    """Runs every other precision on the batches of a comparison, and sums up its figures.

    Only one batch is in memory at a time, and the stages of one precision beside FP32's.

    Args:
        recipe: the bundle's recipe.
        runners: by precision, without fp32.
        stages: by precision, with fp32; empty where engines run, which give no stages.
        most: number of pictures whose stages are compared.
    """

    def __init__(
        self,
        recipe: Recipe,
        runners: Mapping[PrecisionName, Runs],
        stages: Mapping[PrecisionName, Stages],
        most: int = STAGE_PICTURES,
    ) -> None:
        self._runners, self._stages, self._most = runners, stages, most
        names: list[PrecisionName] = ["fp32", *runners]
        self.columns = {
            name: LabelColumn(recipe, "reference" if name == "fp32" else "fp32") for name in names
        }
        self.staged = 0

    def __call__(self, batch: Batch[ComparedLabels]) -> None:
        """Count one batch of the comparison."""
        self._count("fp32", batch, batch.outputs)
        for name, runner in self._runners.items():
            self._count(name, batch, runner.infer(batch.inputs))
        if "fp32" in self._stages and len(self._stages) > 1 and self.staged < self._most:
            self._compare_stages(batch)

    def _count(
        self, name: PrecisionName, batch: Batch[ComparedLabels], outputs: Mapping[str, Array]
    ) -> None:
        for row, picture in enumerate(batch.pictures):
            ours = {key: value[row : row + 1] for key, value in outputs.items()}
            self.columns[name].add(picture, ours)

    def _compare_stages(self, batch: Batch[ComparedLabels]) -> None:
        used = len(batch.pictures)
        expected = {key: value[:used] for key, value in self._stages["fp32"](batch.inputs).items()}
        for name, stages in self._stages.items():
            if name != "fp32":
                found = {key: value[:used] for key, value in stages(batch.inputs).items()}
                self.columns[name].sums.add(expected, found)
        self.staged += used

    def stages_of(
        self, name: PrecisionName
    ) -> tuple[tuple[StageNoise, ...], tuple[StepOverlap, ...]]:
        """Return a precision's stages and points beside the FP32 graph's.

        Both are empty where they were not compared.
        """
        sums = self.columns[name].sums
        return sums.stages(), sums.points()


def canvas_labels(outputs: Mapping[str, Array]) -> Array:
    """Return the labels, (N, Hp, Wp), among a bundle's outputs or a reference's stages.

    They are made from the logits, (N, C, Hp, Wp), where there are no labels.
    """
    if "labels" in outputs:
        return outputs["labels"]
    labels: Array = outputs["logits"].argmax(axis=1).astype(np.uint8)
    return labels


def _figures(scores: LabelScores) -> LabelFigures:
    return LabelFigures(
        miou=number(mean_iou(scores.matrix)),
        boundary_iou={name: number(band.mean()) for name, band in scores.bands.items()},
    )


def label_columns(columns: Columns) -> LabelColumns:
    """Return what counts every precision's label figures during a comparison."""
    return LabelColumns(columns.bundle.manifest.semantic, columns.others, _stages(columns))


def _stages(columns: Columns) -> dict[PrecisionName, Stages]:
    if columns.stages_note or not columns.others:
        return {}
    from pointrend_deploy.parity.onnx_stages import SemanticStages, read_graph, taps

    bundle = columns.bundle
    paths = {name: bundle.file(bundle.graphs_of(name)[0]) for name in columns.names}
    wanted = taps(read_graph(paths["fp32"]))
    return {name: SemanticStages(path, wanted) for name, path in paths.items()}


def label_table(columns: Columns, found: LabelColumns, run: Run) -> PrecisionTable:
    """Return the table of a semantic bundle.

    Args:
        columns: the opened runners.
        found: their figures.
        run: the FP32 column beside the reference.
    """
    truth = next(
        (r for r in run.metrics if (r.prediction, r.against) == ("reference", "truth")), None
    )
    fp32 = found.columns["fp32"].truth
    made = []
    for name in columns.names:
        own = found.columns[name]
        scores = own.truth
        gates = drop_gates(name, _scores(fp32), _scores(scores))
        if truth is None:
            gates = label_gates(name, own.agreement("fp32"), own.compared)
        stages, points = found.stages_of(name)
        least, least_at = own.least or (None, None)
        column = msgspec.structs.replace(
            described(columns, name),
            labels_compared=own.compared,
            agrees_reference=own.agreement("reference"),
            agrees_fp32=None if name == "fp32" else own.agreement("fp32"),
            agrees_least=least,
            agrees_least_at=least_at,
            truth=scores,
            intervals=run.intervals
            if name == "fp32"
            else intervals(own.samples, found.columns["fp32"].samples),
            beside_reference=own.mutual,
            points=points,
            stages=stages,
            gates=gates,
        )
        made.append(msgspec.structs.replace(column, cautions=cautions(column)))
    table = table_of(run, "semantic", made, found.staged, None if truth else "--labels")
    if truth is None:
        return table
    known = LabelFigures(miou=truth.miou, boundary_iou=truth.boundary_iou)
    return msgspec.structs.replace(table, reference_truth=known)


def _scores(figures: LabelFigures | None) -> dict[str, float | None]:
    if figures is None:
        return {}
    return {"mIoU": figures.miou, "boundary IoU, 2 px": figures.boundary_iou.get("2 px")}
