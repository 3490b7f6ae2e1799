"""The check that greedy suppression may leave a set of boxes, up to rounding.

Greedy non-maximum suppression keeps a candidate exactly where no kept, higher-scoring box of its
group overlaps it too much, and stops at a largest number. Only one set obeys this rule. Two runs
whose scores and boxes differ by rounding may keep different boxes where two scores, or an overlap
and the threshold, are nearly equal, and each such exchange may cause others. So the boxes that
only one run kept are not judged one by one: its whole set is checked against the rule, with room
for near ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.instance.matching import box_iou

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
PAIRS_AT_ONCE = 1 << 20
"""Number of pairs of boxes compared at a time, which bounds memory."""


@dataclass(frozen=True)
class Pool:
    """The candidates the reference's suppression chose from, and its rules.

    Attributes:
        boxes: (M, 4) float32, in pixels.
        scores: (M,) float32.
        groups: (M,) integers; boxes of different groups do not suppress one another.
        doubtful: (M,) bool, candidates that rounding may keep out, or let in, before suppression:
            a score near the threshold, or near the last one taken.
        iou_threshold: of the suppression.
        limit: most boxes kept.
        score_tolerance: scores this near one another may stand in either order.
        kept: (K,) int64, indices of the candidates the reference kept, in its order.
    """

    boxes: Array
    scores: Array
    groups: Array
    doubtful: Bool
    iou_threshold: float
    limit: int
    score_tolerance: float
    kept: Int64

    @property
    def labels(self) -> Labels:
        """Groups and scores of the candidates."""
        return Labels(self.groups, self.scores)


class Labels(NamedTuple):
    """Groups (A,) and scores (A,) of A boxes."""

    groups: Array
    scores: Array

    def rows(self, rows: Int64) -> Labels:
        """Those of some of the boxes."""
        return Labels(self.groups[rows], self.scores[rows])


def locate(
    boxes: Array,
    pool_boxes: Array,
    labels: tuple[Labels, Labels] | None = None,
    free: Bool | None = None,
    tolerance: float = gates.BOXES.limit,
) -> Int64:
    """Find each box in a pool; a member of the pool is used once, the nearest pairs first.

    Boxes of different groups are never compared: a pool of 1203 classes has a million members.

    Args:
        boxes: (A, 4).
        pool_boxes: (M, 4).
        labels: of the boxes and of the pool; the two of a pair have one group, and scores no
            further apart than detections' may be. None where every pair is allowed.
        free: (M,) bool, members that are allowed; None for all.
        tolerance: largest difference of a coordinate, in pixels.

    Returns:
        (A,) index into the pool; -1 where none is near enough. Of equally near ones the first.
    """
    members = np.arange(len(pool_boxes)) if free is None else np.flatnonzero(free)
    near: list[tuple[Int64, Int64, Array]] = []
    for own, others in _parts(len(boxes), members, labels):
        step = max(1, PAIRS_AT_ONCE // max(1, len(others)))
        for start in range(0, len(own), step):
            part = own[start : start + step]
            apart = np.zeros((len(part), len(others)), np.float32)
            for side in range(4):
                distance = boxes[part, None, side] - pool_boxes[None, others, side]
                np.maximum(apart, np.abs(distance), out=apart)
            close = apart <= tolerance
            if labels is not None:
                scores = labels[0].scores[part, None].astype(np.float64)
                close &= np.abs(scores - labels[1].scores[None, others]) <= gates.SCORES.limit
            at = np.nonzero(close)
            near.append((part[at[0]], others[at[1]], apart[at]))
    found = np.full(len(boxes), -1, np.int64)
    if not near:
        return found
    used = np.zeros(len(pool_boxes), np.bool_)
    rows, columns, distances = (np.concatenate(values) for values in zip(*near, strict=True))
    for each in np.lexsort((columns, rows, distances)):
        i, j = int(rows[each]), int(columns[each])
        if found[i] < 0 and not used[j]:
            found[i], used[j] = j, True
    return found


def _parts(
    count: int, members: Int64, labels: tuple[Labels, Labels] | None
) -> Iterator[tuple[Int64, Int64]]:
    """Yield rows of the boxes and members of the pool that may be pairs, group by group."""
    if labels is None:
        yield np.arange(count), members
        return
    own, others = labels
    theirs = _by_group(others.groups[members])
    for group, rows in _by_group(own.groups).items():
        if group in theirs:
            yield rows, members[theirs[group]]


def _by_group(groups: Array) -> dict[int, Int64]:
    """Rows of every group, ascending."""
    order = np.argsort(groups, kind="stable")
    values, starts = np.unique(groups[order], return_index=True)
    rows = np.split(order, starts[1:])
    return {int(value): each for value, each in zip(values, rows, strict=False)}


def unlawful(pool: Pool, held: Int64, shift: float) -> tuple[Int64, Int64]:
    """Find the members of a pool that a set should not have, and those it lacks.

    Args:
        pool: the candidates.
        held: the set: indices into the pool, in any order, each once.
        shift: pixels by which the two runs' boxes differ; it moves the IoU of small boxes most.

    Returns:
        Indices of members of the set that another one surely suppresses (of all members, where
        they are too many), and of members outside the set that nothing keeps out.
    """
    inside = np.zeros(len(pool.boxes), np.bool_)
    inside[held] = True
    surely, possibly = suppressed(pool, held, shift)
    beyond = np.zeros_like(inside)
    if len(held) >= pool.limit and len(held):
        beyond = pool.scores <= pool.scores[held].min() + pool.score_tolerance
    wrongly_in = inside if len(held) > pool.limit else inside & surely
    wrongly_out = ~inside & ~pool.doubtful & ~possibly & ~beyond
    return np.flatnonzero(wrongly_in), np.flatnonzero(wrongly_out)


def suppressed(pool: Pool, held: Int64, shift: float) -> tuple[Bool, Bool]:
    """Mark the members of a pool that a set suppresses: surely, and possibly; (M,) bool each."""
    surely, possibly = (np.zeros(len(pool.boxes), np.bool_) for _ in range(2))
    for group in np.unique(pool.groups[held]):
        members = np.flatnonzero(pool.groups == group)
        rulers = held[pool.groups[held] == group]
        step = max(1, PAIRS_AT_ONCE // len(rulers))
        for start in range(0, len(members), step):
            part = members[start : start + step]
            overlap = box_iou(pool.boxes[part], pool.boxes[rulers])
            room = _room(pool.boxes[part], pool.boxes[rulers], shift)
            ahead = pool.scores[rulers][None] - pool.scores[part][:, None]
            other = part[:, None] != rulers[None]
            above = (ahead > pool.score_tolerance) & (overlap > pool.iou_threshold + room)
            near = (ahead >= -pool.score_tolerance) & (overlap > pool.iou_threshold - room)
            surely[part] = (above & other).any(axis=1)
            possibly[part] = (near & other).any(axis=1)
    return surely, possibly


def _room(a: Array, b: Array, shift: float) -> Array:
    """Bound how far the IoU of two boxes moves when their sides move by ``shift``: (A, B).

    A side that moves by d changes an overlap by d / length; there are four of each.
    """
    shortest_a = np.minimum(a[:, 2] - a[:, 0], a[:, 3] - a[:, 1]).astype(np.float64)
    shortest_b = np.minimum(b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]).astype(np.float64)
    length = np.minimum(shortest_a[:, None], shortest_b[None]).clip(1e-6)
    return np.asarray(np.minimum(gates.OVERLAP.limit + 8 * shift / length, 1.0))
