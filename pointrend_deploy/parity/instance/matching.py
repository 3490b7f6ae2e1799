"""Which detection of one set is which of another: greedy, within a class, by falling IoU.

MERGED: What a graph of lower precision loses, measured against the FP32 graph's own answers.

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
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.instance.masks import overlap
from pointrend_deploy.run.instance.instances import Instances

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matching:
    """What two sets of detections have in common.

    Attributes:
        pairs: (M, 2) int64: row in a, row in b; ordered by the row in a.
        only_a: (A - M,) int64: rows of a that nothing in b answers, ascending.
        only_b: (B - M,) int64: the reverse.
    """

    pairs: Int64
    only_a: Int64
    only_b: Int64


def match(
    boxes_a: Array,
    classes_a: Array,
    scores_a: Array,
    boxes_b: Array,
    classes_b: Array,
    scores_b: Array,
    min_iou: float = 0.5,
) -> Matching:
    """Pair detections of equal class, each used once, the best overlap first.

    Equal overlaps go to the smaller difference of scores, then to the lower rows. A box without
    area overlaps exactly itself.

    Args:
        boxes_a: (A, 4) x1, y1, x2, y2 in pixels.
        classes_a: (A,) integers.
        scores_a: (A,).
        boxes_b: (B, 4), in the same pixels.
        classes_b: (B,) integers.
        scores_b: (B,).
        min_iou: least IoU of a pair, above 0.

    Raises:
        DeployError: a set's boxes, classes and scores are not of one length.
    """
    a = _checked(boxes_a, classes_a, scores_a, "a")
    b = _checked(boxes_b, classes_b, scores_b, "b")
    overlap = box_iou(a, b)
    allowed = (classes_a[:, None] == classes_b[None]) & (overlap >= min_iou)
    rows, columns = np.nonzero(allowed)
    apart = np.abs(scores_a[rows].astype(np.float64) - scores_b[columns].astype(np.float64))
    free_a, free_b = np.ones(len(a), np.bool_), np.ones(len(b), np.bool_)
    pairs: list[tuple[int, int]] = []
    for each in np.lexsort((columns, rows, apart, -overlap[rows, columns])):
        i, j = int(rows[each]), int(columns[each])
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = False
            pairs.append((i, j))
    return Matching(
        np.array(sorted(pairs), np.int64).reshape(-1, 2),
        np.flatnonzero(free_a).astype(np.int64),
        np.flatnonzero(free_b).astype(np.int64),
    )


def box_iou(a: Array, b: Array) -> npt.NDArray[np.float64]:
    """IoU of each of (A, 4) boxes with each of (B, 4), in float64: (A, B).

    Where the union has no area, 1 for two equal boxes and 0 otherwise.
    """
    left, right = a[:, None].astype(np.float64), b[None].astype(np.float64)
    sides = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    shared = sides.clip(0).prod(axis=-1)
    areas = (left[..., 2:] - left[..., :2]).clip(0).prod(axis=-1)
    union = areas + (right[..., 2:] - right[..., :2]).clip(0).prod(axis=-1) - shared
    same = (left == right).all(axis=-1).astype(np.float64)
    overlap: npt.NDArray[np.float64] = np.divide(shared, union, out=same, where=union > 0)
    return overlap


def _checked(boxes: Array, classes: Array, scores: Array, side: str) -> Array:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) == len(classes) == len(scores):
        raise DeployError(
            f"detections {side} have boxes {boxes.shape}, classes {classes.shape} and scores "
            f"{scores.shape}; (R, 4), (R,) and (R,) are expected"
        )
    return boxes


CONFIDENT: Final = 0.5
"""Detections with at least this score are what a user sees; the others only may answer them."""


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
