"""What a comparison of an instance bundle found: matched detections, and average precision."""

from __future__ import annotations

from typing import Literal

from pointrend_deploy.parity.record.rows import Row

Measure = Literal["box", "mask", "boundary"]


class DetectionsRow(Row, frozen=True):
    """Detections of two sides, matched by class and IoU.

    A row is true in a condition when its gates passed.

    Attributes:
        matched: number of pairs; the differences below are over the pairs.
        only_bundle, only_reference: number of detections that the other side does not have.
        explained: how many of those a near tie explains (see ``parity.instance.selection``).
        box_canvas_px, box_picture_px: largest difference of a box's edge, in pixels of the network
            input and of the picture.
        score: largest difference of two scores.
        mask_iou_mean, mask_iou_min: IoU (0..1) of the masks pasted at the picture's size.
        unexplained: a few words on each detection that no near tie explains; the first few.
    """

    matched: int
    only_bundle: int = 0
    only_reference: int = 0
    explained: int = 0
    box_canvas_px: float | None = None
    box_picture_px: float | None = None
    score: float | None = None
    mask_iou_mean: float | None = None
    mask_iou_min: float | None = None
    unexplained: tuple[str, ...] = ()
    passed: bool = True

    def __bool__(self) -> bool:
        return self.passed


class DetectedPicture(Row, frozen=True):
    """One picture's detections beside the reference's."""

    name: str
    size_hw: tuple[int, int]
    detections: DetectionsRow


class ClassAP(Row, frozen=True):
    """Average precision of one class; None where it has no object in the truth."""

    name: str
    ap: float | None


class AccuracyRow(Row, frozen=True):
    """COCO-style average precision of one side, in 0..1.

    Attributes:
        prediction: ``reference`` or ``bundle``.
        measure: what is overlapped: boxes, masks, or the inner bands of masks (boundary).
        ap: mean over the IoU thresholds 0.50 to 0.95.
        ap50, ap75: at one IoU threshold.
        small, medium, large: for objects below 32² pixels, between, and above 96² pixels.
        classes: of each class the truth knows.
    """

    prediction: str
    measure: Measure
    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    classes: tuple[ClassAP, ...] = ()


class Truth(Row, frozen=True):
    """The annotations that the scores were computed against.

    Attributes:
        source: name of the annotation file or folder.
        pictures, objects, crowds: how many were evaluated; crowds are regions whose detections do
            not count.
        evaluator: the program that scored, and its version.
        classes_left_out: classes of the model that the annotations do not list.
    """

    source: str
    pictures: int
    objects: int
    crowds: int
    evaluator: str
    classes_left_out: tuple[str, ...] = ()
