"""Which detection of one set is which of another, and what a graph of lower precision loses.

Matching is greedy, within a class, by falling IoU.

The points lost (:func:`detection_points`) compare a graph's answers with the FP32 graph's own, so
no truth is needed and any pictures will do: 0 is the same answers, 100 nothing in common. Unlike
the points of labels (:func:`pointrend_deploy.parity.scores.labels.label_points`) they set no bound
on what a score against a truth loses: average precision depends on the order of scores too.
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
    """Which detections of two sets are the same.

    Attributes:
        pairs: (M, 2) int64: row in a, row in b; ordered by the row in a.
        only_a: (A - M,) int64: rows of a without a partner in b, ascending.
        only_b: (B - M,) int64: rows of b without a partner in a, ascending.
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

    Of equal overlaps the smaller difference of scores comes first, then the lower rows. A box
    without area overlaps only a box that is equal.

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
    """Return the IoU of each box of a with each box of b, (A, B) float64.

    Where the union has no area it is 1 for two equal boxes and 0 otherwise.

    Args:
        a: (A, 4) x1, y1, x2, y2.
        b: (B, 4).
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
"""A user sees detections with at least this score; the others only count as partners of these."""


def detection_points(theirs: Sequence[Instances], ours: Iterable[Instances]) -> float | None:
    """Return the points that detections lose: 100 (1 - mean overlap).

    Every confident detection of either graph counts once, with the best mask IoU that a detection
    of its class, of any score, has on the other side; 0 where there is none. So a lost detection
    costs as much as an invented one, while a detection whose score just crosses the threshold costs
    nothing. A detection is confident with a score of :data:`CONFIDENT` or more; where FP32 finds
    nothing confident, with any score.

    Args:
        theirs: the FP32 graph's detections in each picture.
        ours: the other graph's, of the same pictures in the same order; taken one by one.

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
    """Return the IoU of each mask of a with each of b in one picture, (A, B) float64.

    It is 0 for detections of different classes, and where the boxes do not overlap: a mask is
    nowhere more than one pixel outside its box.
    """
    ious = np.zeros((len(a), len(b)))
    meeting = (a.classes[:, None] == b.classes[None]) & (box_iou(a.boxes, b.boxes) > 0)
    for i in np.flatnonzero(meeting.any(axis=1)).tolist():
        mask = a.patches[i]
        for j in np.flatnonzero(meeting[i]).tolist():
            both, union = overlap(mask, b.patches[j])
            ious[i, j] = both / union if union else 1.0
    return ious
