from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.instance.matching import Matching, box_iou, match


def some(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(5, 80, (count, 2))), axis=1)
    return boxes.astype(np.float32), rng.integers(0, 3, count), rng.uniform(0, 1, count)


def lists(found: Matching) -> tuple[list[list[int]], list[int], list[int]]:
    return found.pairs.tolist(), found.only_a.tolist(), found.only_b.tolist()


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 30))
def test_a_shuffled_copy_matches_itself(seed: int, count: int) -> None:
    boxes, classes, scores = some(seed, count)
    order = np.random.default_rng(seed + 1).permutation(count)
    found = match(boxes, classes, scores, boxes[order], classes[order], scores[order])
    assert len(found.pairs) == count
    np.testing.assert_array_equal(order[found.pairs[:, 1]], found.pairs[:, 0])


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 30), st.integers(0, 30))
def test_every_row_stands_in_one_place_and_pairs_are_lawful(seed: int, a: int, b: int) -> None:
    one, two = some(seed, a), some(seed + 1, b)
    found = match(*one, *two, min_iou=0.3)
    assert sorted([*found.pairs[:, 0], *found.only_a]) == list(range(a))
    assert sorted([*found.pairs[:, 1], *found.only_b]) == list(range(b))
    overlap = box_iou(one[0], two[0])
    for i, j in found.pairs:
        assert one[1][i] == two[1][j]
        assert overlap[i, j] >= 0.3
    for i in found.only_a:  # greedy leaves no lawful pair behind
        assert not ((overlap[i, found.only_b] >= 0.3) & (two[1][found.only_b] == one[1][i])).any()


def test_class_and_overlap_part_what_is_apart() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    scores = np.array([0.9, 0.8])
    shifted = boxes + np.array([[0, 0, 0, 0], [6, 0, 6, 0]], np.float32)  # IoU 4/16
    found = match(boxes, np.array([1, 1]), scores, shifted, np.array([1, 1]), scores)
    assert lists(found) == ([[0, 0]], [1], [1])
    other = match(boxes, np.array([1, 1]), scores, boxes, np.array([2, 1]), scores)
    assert lists(other) == ([[1, 1]], [0], [0])


def test_the_best_overlap_wins_then_the_nearest_score() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    near = np.array([[0, 0, 10, 9], [0, 0, 10, 10]], np.float32)
    one, two = np.array([0]), np.array([0, 0])
    found = match(box, one, np.array([0.5]), near, two, np.array([0.5, 0.1]))
    assert lists(found) == ([[0, 1]], [], [0])
    twins = np.concatenate((box, box))
    found = match(box, one, np.array([0.5]), twins, two, np.array([0.9, 0.52]))
    assert lists(found) == ([[0, 1]], [], [0])


def test_nothing_against_something() -> None:
    boxes, classes, scores = some(0, 4)
    none = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0))
    assert lists(match(*none, boxes, classes, scores)) == ([], [], [0, 1, 2, 3])
    assert lists(match(*none, *none)) == ([], [], [])


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 4, 4], [2, 2, 2, 9]], np.float32)
    b = np.array([[2, 2, 6, 6], [2, 2, 2, 9], [3, 3, 3, 3]], np.float32)
    np.testing.assert_allclose(box_iou(a, b), [[4 / 28, 0, 0], [0, 1, 0]])


def test_sets_of_uneven_length_are_refused() -> None:
    boxes, classes, scores = some(0, 4)
    with pytest.raises(DeployError, match=r"detections b .*\(3,\)"):
        match(boxes, classes, scores, boxes, classes[:3], scores)
