"""What a comparison of an instance bundle found: matched detections, and average precision."""

from __future__ import annotations

from typing import Literal

import msgspec

Measure = Literal["box", "mask", "boundary"]


class _Row(msgspec.Struct, kw_only=True, frozen=True):
    """A frozen row of ``parity.json``."""


class DetectionsRow(_Row, frozen=True):
    """Detections of two sides, matched by class and IoU. Truthy when the gates on them passed.

    Attributes:
        matched: pairs; the differences below are over them.
        only_bundle, only_reference: detections the other side lacks.
        explained: of these, how many a near tie explains (see ``near_ties``).
        box_canvas_px, box_picture_px: largest difference of a box's edge, in pixels of the network
            input and of the picture.
        score: largest difference of two scores.
        mask_iou_mean, mask_iou_min: IoU of the pasted masks at the picture's size.
        unexplained: what the others are, in a few words each; the first few.
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


class DetectedPicture(_Row, frozen=True):
    """One picture's detections beside the reference's."""

    name: str
    size_hw: tuple[int, int]
    detections: DetectionsRow


class ClassAP(_Row, frozen=True):
    """Average precision of one class; None where it has no object in the truth."""

    name: str
    ap: float | None


class AccuracyRow(_Row, frozen=True):
    """COCO-style average precision of one side, in 0..1.

    Attributes:
        prediction: ``reference`` or ``bundle``.
        measure: what overlaps: boxes, masks, or the inner bands of masks (boundary).
        ap: over IoU 0.50 to 0.95; ``ap50``, ``ap75`` at one IoU; ``small``, ``medium``, ``large``
            for objects below 32², between, and above 96² pixels.
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


class Truth(_Row, frozen=True):
    """The annotations scores were computed against.

    Attributes:
        source: the annotation file's or folder's name.
        pictures, objects, crowds: evaluated; crowds are regions whose detections do not count.
        evaluator: the program and its version.
        classes_left_out: classes of the model the annotations do not know.
    """

    source: str
    pictures: int
    objects: int
    crowds: int
    evaluator: str
    classes_left_out: tuple[str, ...] = ()
