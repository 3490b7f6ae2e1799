"""What a comparison of precisions found: one column for each, beside the PyTorch reference."""

from __future__ import annotations

from typing import Literal

import msgspec

from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.parity.record.detections import AccuracyRow
from pointrend_deploy.parity.record.intervals import ScoreInterval
from pointrend_deploy.parity.record.rows import Limit, Row

PrecisionName = Precision
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8")


class PrecisionGate(Limit, frozen=True):
    """A limit on what a lower precision may lose.

    ``value`` of a drop is the FP32 column's figure minus this column's, so a gain is negative.
    """


class LabelFigures(Row, frozen=True):
    """mIoU and boundary IoU (by band, see ``MetricRow``) of label maps, over all pictures."""

    miou: float | None
    boundary_iou: dict[str, float | None]


class MatchFigures(Row, frozen=True):
    """Detections of one column matched with another side's, by class and overlap.

    Attributes:
        matched: number of pairs; the differences are over the pairs.
        only_here, only_there: number of detections that the other side does not have.
        box_px: largest difference of a box's edge over all pairs, in pixels of the picture.
        box_median_px: median over the pairs of each pair's largest difference of an edge.
        mask_iou_mean, mask_iou_min: IoU (0..1) of the masks pasted at the picture's size.
        box_px_at, mask_iou_min_at: the pictures with the largest difference of a box and with the
            least IoU of a mask; None without a pair, and in records of earlier versions.
    """

    matched: int
    only_here: int
    only_there: int
    box_px: float | None = None
    box_median_px: float | None = None
    mask_iou_mean: float | None = None
    mask_iou_min: float | None = None
    box_px_at: str | None = None
    mask_iou_min_at: str | None = None

    @property
    def theirs(self) -> int:
        """Number of the other side's detections."""
        return self.matched + self.only_there

    @property
    def ours(self) -> int:
        """Number of this side's own detections."""
        return self.matched + self.only_here


class StageNoise(Row, frozen=True):
    """How far a stage of one precision is from the FP32 graph's.

    Attributes:
        stage: module path of a block, or the stage's name.
        rms: root mean square of the FP32 graph's values.
        noise: root mean square of the difference; 0 where nothing differs.
        snr_db: 20 log10(rms / noise); None where nothing differs or it could not be compared.
        near_zero: True for logits at points that were chosen because their one logit is near zero.
            The signal is small by choice, so a low ratio does not mean that the error enters here.
        problem: why it could not be compared; empty where it was.
    """

    stage: str
    rms: float | None = None
    noise: float | None = None
    snr_db: float | None = None
    near_zero: bool = False
    problem: str = ""


class StepOverlap(Row, frozen=True):
    """Points chosen at one subdivision step: this precision's sets beside the FP32 graph's.

    Attributes:
        k: number of points in a set.
        sets: number of sets: one for each picture, or one for each detection.
        share: share (0..1) of the FP32 graph's points that this precision chose too, over all sets.
        least: the smallest such share of a single set.
        jaccard: points that both chose divided by points that either chose, over all sets.
    """

    step: int
    k: int
    sets: int
    share: float
    least: float
    jaccard: float


class PrecisionColumn(Row, frozen=True):
    """The figures of one precision. A column is true in a condition when all its gates passed.

    Attributes:
        runner: ``onnx`` (for fp16 and int8 a simulation on the CPU) or ``tensorrt``.
        engine: folder of the engine that ran; None for ``onnx``.
        graphs: SHA-256 of the graphs of this precision by file name, when they were compared.
        graph_bytes: size of these graphs together, in bytes.
        engines: size in bytes of the engines of these graphs by folder; None where not known.
        labels_compared: number of pixels of the canvas that show a picture.
        agrees_reference, agrees_fp32: share (0..1) of these pixels with the same label as PyTorch
            and as the FP32 column.
        agrees_least, agrees_least_at: the smallest such share of a single picture, and its name:
            with the FP32 column, of fp32 itself with PyTorch. None for instance bundles, and in
            records of earlier versions.
        truth, beside_reference: label figures against the truth and against PyTorch's labels.
        found_reference, found_fp32: detections matched with PyTorch's and with the FP32 column's.
        accuracy: average precision, one row for each of box, mask and boundary.
        intervals: how far the scores against the truth depend on the pictures, and their change
            beside the FP32 column's (of fp32 itself: beside PyTorch's). Empty without a truth, for
            few pictures, and in records of earlier versions.
        points, stages: compared with the FP32 graph's. Where they could not be compared they are
            empty and ``stages_note`` says why.
        unreadable: pictures whose answers cannot be right, each with the reason.
        fallback: type of the layers that are neither in ``int8_layers`` nor in ``fp32_layers``.
        int8_layers: number of layers that compute in INT8.
        int8_flops: share (0..1) of the FLOPs meant for INT8 that do compute in INT8.
        left_out: layers that do not compute in INT8, each with the reason.
        method, pictures: how the ranges were calibrated, and on how many pictures.
        cautions: limits below which the answers differ from fp32's too much to be called passed,
            though no gate failed; also those that are met. Empty in records of earlier versions:
            :func:`pointrend_deploy.parity.gates.cautions` gives them from the other figures.
    """

    precision: PrecisionName
    runner: str
    engine: str | None = None
    graphs: dict[str, str] = msgspec.field(default_factory=dict)
    graph_bytes: int | None = None
    engines: dict[str, int | None] = msgspec.field(default_factory=dict)
    labels_compared: int = 0
    agrees_reference: float | None = None
    agrees_fp32: float | None = None
    agrees_least: float | None = None
    agrees_least_at: str | None = None
    truth: LabelFigures | None = None
    beside_reference: LabelFigures | None = None
    found_reference: MatchFigures | None = None
    found_fp32: MatchFigures | None = None
    accuracy: tuple[AccuracyRow, ...] = ()
    intervals: tuple[ScoreInterval, ...] = ()
    points: tuple[StepOverlap, ...] = ()
    stages: tuple[StageNoise, ...] = ()
    stages_note: str = ""
    unreadable: tuple[str, ...] = ()
    fallback: str | None = None
    int8_layers: int = 0
    fp32_layers: tuple[str, ...] = ()
    int8_flops: float | None = None
    left_out: dict[str, str] = msgspec.field(default_factory=dict)
    method: str | None = None
    pictures: int | None = None
    gates: tuple[PrecisionGate, ...] = ()
    cautions: tuple[PrecisionGate, ...] = ()

    def __bool__(self) -> bool:
        return all(self.gates)

    @property
    def simulated(self) -> bool:
        """Whether ONNX Runtime on the CPU imitated what an engine computes."""
        return self.runner == "onnx" and self.precision != "fp32"


class PrecisionTable(Row, frozen=True):
    """All columns of one comparison. A table is true in a condition when all gates passed.

    Attributes:
        pictures: number of pictures compared.
        stage_pictures: number of pictures, from the first on, whose stages and points were
            compared too.
        truth: whether a truth was given.
        reference_truth, reference_accuracy: PyTorch's own figures against the truth.
        columns: always fp32 first, then the other precisions that were chosen.
        notes: which accuracies have no gate, and why.
    """

    task: Literal["semantic", "instance"]
    created: str
    pictures: int
    stage_pictures: int
    truth: bool
    columns: tuple[PrecisionColumn, ...]
    reference_truth: LabelFigures | None = None
    reference_accuracy: tuple[AccuracyRow, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return all(self.columns)
