"""Which detection of one set is which of another: greedy, within a class, by falling IoU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import DeployError

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
