"""What a comparison of precisions found: a column each, beside the PyTorch reference."""

from __future__ import annotations

from typing import Literal

import msgspec

from pointrend_deploy.parity.record.detections import AccuracyRow

PrecisionName = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8")


class _Row(msgspec.Struct, kw_only=True, frozen=True):
    """A frozen row of ``parity.json``."""


class PrecisionGate(_Row, frozen=True):
    """One written limit of a lower precision and the value held against it. Truthy if it passes.

    ``value`` of a drop is the FP32 column's figure less this column's, so a gain is below zero.
    """

    name: str
    value: float | None
    limit: float
    op: Literal["<=", ">="]
    reason: str
    passed: bool

    def __bool__(self) -> bool:
        return self.passed


class LabelFigures(_Row, frozen=True):
    """mIoU and boundary IoU (by band, see ``MetricRow``) of label maps, over all pictures."""

    miou: float | None
    boundary_iou: dict[str, float | None]


class MatchFigures(_Row, frozen=True):
    """Detections of one column matched with another side's, by class and overlap.

    Attributes:
        matched: pairs; the differences are over them.
        only_here, only_there: detections the other side lacks.
        box_px: largest difference of a box's edge, in pixels of the picture; ``box_median_px`` the
            median over the pairs of each one's largest.
        mask_iou_mean, mask_iou_min: IoU of the pasted masks at the picture's size.
    """

    matched: int
    only_here: int
    only_there: int
    box_px: float | None = None
    box_median_px: float | None = None
    mask_iou_mean: float | None = None
    mask_iou_min: float | None = None


class StageNoise(_Row, frozen=True):
    """How far a stage of one precision is from the FP32 graph's.

    Attributes:
        stage: module path of a block, or the stage's name.
        rms: root mean square of the FP32 graph's values.
        noise: root mean square of the difference; 0 where nothing differs.
        snr_db: 20 log10(rms / noise); None where nothing differs or it could not be compared.
        near_zero: logits at points chosen because their one logit is near zero: the signal is small
            by choice, so a low ratio does not say that the error enters here.
        problem: why it could not be compared; empty where it was.
    """

    stage: str
    rms: float | None = None
    noise: float | None = None
    snr_db: float | None = None
    near_zero: bool = False
    problem: str = ""


class StepOverlap(_Row, frozen=True):
    """Points chosen at one subdivision step: this precision's sets beside the FP32 graph's.

    Attributes:
        k: points in a set; ``sets``: how many, one a picture or one a detection.
        share: of the FP32 graph's points those that this precision chose too, over all sets.
        least: the smallest such share of one set.
        jaccard: points both chose over points either chose, over all sets.
    """

    step: int
    k: int
    sets: int
    share: float
    least: float
    jaccard: float


class PrecisionColumn(_Row, frozen=True):
    """One precision. Truthy when every gate on it passed.

    Attributes:
        runner: ``onnx`` (for fp16 and int8 a simulation on the CPU) or ``tensorrt``.
        engine: the engine that ran; None for ``onnx``.
        graphs: SHA-256 of the graphs of this precision by file name, as they were.
        graph_bytes: their size together.
        engines: size in bytes of the engines of these graphs by folder; None where not known.
        labels_compared: pixels of the canvas that show a picture.
        agrees_reference, agrees_fp32: share of them with the same label.
        truth, beside_reference: label figures against the truth and against PyTorch's labels.
        found_reference, found_fp32: detections beside PyTorch's and the FP32 column's.
        accuracy: average precision, a row each for box, mask and boundary.
        points, stages: beside the FP32 graph's; empty with the reason in ``stages_note``.
        unreadable: pictures whose answers cannot be right, each with the reason.
        fallback: type of the layers that are neither in ``int8_layers`` nor in ``fp32_layers``.
        int8_flops: share of the FLOPs meant for INT8 that are in it.
        left_out: layers that do not compute in INT8, each with the reason.
        method, pictures: of the calibration.
    """

    precision: PrecisionName
    runner: str
    engine: str | None = None
    graphs: dict[str, str] = {}
    graph_bytes: int | None = None
    engines: dict[str, int | None] = {}
    labels_compared: int = 0
    agrees_reference: float | None = None
    agrees_fp32: float | None = None
    truth: LabelFigures | None = None
    beside_reference: LabelFigures | None = None
    found_reference: MatchFigures | None = None
    found_fp32: MatchFigures | None = None
    accuracy: tuple[AccuracyRow, ...] = ()
    points: tuple[StepOverlap, ...] = ()
    stages: tuple[StageNoise, ...] = ()
    stages_note: str = ""
    unreadable: tuple[str, ...] = ()
    fallback: str | None = None
    int8_layers: int = 0
    fp32_layers: tuple[str, ...] = ()
    int8_flops: float | None = None
    left_out: dict[str, str] = {}
    method: str | None = None
    pictures: int | None = None
    gates: tuple[PrecisionGate, ...] = ()

    def __bool__(self) -> bool:
        return all(self.gates)

    @property
    def simulated(self) -> bool:
        """Whether ONNX Runtime imitated on the CPU what only an engine computes."""
        return self.runner == "onnx" and self.precision != "fp32"


class PrecisionTable(_Row, frozen=True):
    """All columns of one comparison, FP32 first. Truthy when every gate on them passed.

    Attributes:
        pictures: compared; of the first ``stage_pictures`` of them points and stages too.
        truth: whether there was one.
        reference_truth, reference_accuracy: PyTorch's own figures against it.
        columns: fp32 always, then what was asked for.
        notes: what is not gated, and why.
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
