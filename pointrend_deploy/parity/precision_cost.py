"""What a graph of lower precision loses, measured against the FP32 graph's own answers.

No truth is needed, so any pictures will do. In points: 0 is the same answers, 100 nothing in
common. Both measures compare what is seen, pixels and things found, on the network's canvas.

Of labels, 100 (1 - IoU) of two areas is a distance (Jaccard's), so by the triangle inequality the
mIoU against any truth, over the classes that FP32 shows, is lower than FP32's by at most what is
measured here, on these pictures. Usually it is lower by much less: most pixels that change lie on
boundaries, where FP32 is as often wrong. Average precision has no such bound, since it depends on
the order of scores too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.instance_pasted import overlap
from pointrend_deploy.parity.masks import confusion, iou_per_class
from pointrend_deploy.parity.matching import box_iou
from pointrend_deploy.run.instances import Instances

Array = npt.NDArray[Any]

CONFIDENT: Final = 0.5
"""Detections with at least this score are what a user sees; the others only may answer them."""


def label_points(theirs: Sequence[Array], ours: Iterable[Array], num_classes: int) -> float | None:
    """Points lost of labels: 100 (1 - mIoU), over the classes FP32 shows in any picture.

    Args:
        theirs: of FP32, (H, W) labels in 0..C-1 of each picture.
        ours: of the other graph, the same pictures in the same order; taken one by one.
        num_classes: C.

    Returns:
        0..100; None where there is no pixel.

    Raises:
        DeployError: label maps of two sizes, or a label out of range.
    """
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for before, after in zip(theirs, ours, strict=True):
        matrix += confusion(after, before, num_classes)
    shown = matrix.sum(axis=1) > 0
    if not shown.any():
        return None
    return 100.0 * (1.0 - float(iou_per_class(matrix)[shown].mean()))


def classes_shown(labels: Iterable[Array]) -> int:
    """How many classes occur in label maps."""
    return len(set().union(*(np.unique(each).tolist() for each in labels)))


def detection_points(theirs: Sequence[Instances], ours: Iterable[Instances]) -> float | None:
    """Points lost of detections: 100 (1 - mean overlap).

    Every confident detection of either graph counts once, with the best mask IoU that a detection
    of its class and of any score has on the other side; 0 where there is none. So a thing that is
    lost costs as much as one that is made up, while one whose score crosses the threshold by a
    hair costs nothing. Confident is a score of :data:`CONFIDENT` or more, or any score where FP32
    finds nothing confident.

    Args:
        theirs: of FP32, the detections in each picture.
        ours: of the other graph, the same pictures in the same order; taken one by one.

    Returns:
        0..100; None where FP32 finds nothing at all.
    """
    if not any(len(each) for each in theirs):
        return None
    confident = any((each.scores >= CONFIDENT).any() for each in theirs)
    least = CONFIDENT if confident else 0.0
    best: list[float] = []
    for before, after in zip(theirs, ours, strict=True):
        found = mask_ious(before, after)
        best += found.max(axis=1, initial=0.0)[before.scores >= least].tolist()
        best += found.max(axis=0, initial=0.0)[after.scores >= least].tolist()
    return 100.0 * (1.0 - float(np.mean(best)))


def mask_ious(a: Instances, b: Instances) -> npt.NDArray[np.float64]:
    """IoU of each mask of a with each of b in one picture, (A, B); 0 for two classes.

    Masks whose boxes do not overlap have 0 too: one is nowhere more than a pixel outside its box.
    """
    ious = np.zeros((len(a), len(b)))
    meeting = (a.classes[:, None] == b.classes[None]) & (box_iou(a.boxes, b.boxes) > 0)
    for i in np.flatnonzero(meeting.any(axis=1)).tolist():
        mask = a.patches[i]
        for j in np.flatnonzero(meeting[i]).tolist():
            both, union = overlap(mask, b.patches[j])
            ious[i, j] = both / union if union else 1.0
    return ious
