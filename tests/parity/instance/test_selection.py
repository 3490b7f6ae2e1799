"""What greedy suppression may leave up to rounding, by hand and by chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pointrend_deploy.model.instance.boxes import grouped_nms
from pointrend_deploy.parity import gates
from pointrend_deploy.parity.instance.masks import overlap, pasted_gates
from pointrend_deploy.parity.instance.matching import box_iou
from pointrend_deploy.parity.instance.selection import Labels, Pool, locate, unlawful


def pool_of(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, limit: int = 100) -> Pool:
    kept = grouped_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(groups), 0.5
    )
    return Pool(
        boxes=boxes,
        scores=scores,
        groups=groups,
        doubtful=np.zeros(len(boxes), np.bool_),
        iou_threshold=0.5,
        limit=limit,
        score_tolerance=1e-3,
        kept=kept[:limit].numpy(),
    )


def some(seed: int, count: int, limit: int = 100) -> Pool:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(8, 60, (count, 2))), axis=1)
    scores = rng.uniform(0, 1, count).astype(np.float32)
    return pool_of(boxes.astype(np.float32), scores, rng.integers(0, 2, count), limit)


def lists(found: tuple[np.ndarray, np.ndarray]) -> tuple[list[int], list[int]]:
    return found[0].tolist(), found[1].tolist()


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 60), st.sampled_from([3, 100]))
def test_what_the_reference_kept_is_lawful(seed: int, count: int, limit: int) -> None:
    pool = some(seed, count, limit)
    assert lists(unlawful(pool, pool.kept, 0.0)) == ([], [])


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 60), st.integers(0, 60))
def test_the_same_with_other_rounding_is_lawful(seed: int, count: int, other: int) -> None:
    """Scores and boxes moved by less than the tolerances, the suppression repeated."""
    pool = some(seed, count)
    rng = np.random.default_rng(other)
    scores = pool.scores + rng.uniform(-4e-4, 4e-4, count).astype(np.float32)
    boxes = pool.boxes + rng.uniform(-0.05, 0.05, (count, 4)).astype(np.float32)
    moved = pool_of(boxes, scores, pool.groups)
    assert lists(unlawful(pool, moved.kept, 0.05)) == ([], [])


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(2, 40))
def test_one_left_out_or_one_too_many_is_unlawful(seed: int, count: int) -> None:
    pool = dataclasses.replace(some(seed, count), score_tolerance=1e-9)
    assume((np.abs(box_iou(pool.boxes, pool.boxes) - 0.5) > 2e-4).all())
    for place, member in enumerate(pool.kept):
        wrongly_out = unlawful(pool, np.delete(pool.kept, place), 0.0)[1]
        assert member in wrongly_out
    for member in np.setdiff1d(np.arange(count), pool.kept):
        wrongly_in = unlawful(pool, np.append(pool.kept, member), 0.0)[0]
        assert len(wrongly_in)


def three() -> Pool:
    """Boxes 0 and 1 overlap by 0.6; box 2 stands alone."""
    boxes = np.array([[0, 0, 10, 10], [0, 2.5, 10, 12.5], [50, 50, 60, 60]], np.float32)
    return pool_of(boxes, np.array([0.9, 0.5, 0.3], np.float32), np.zeros(3, np.int64))


def test_by_hand() -> None:
    pool = three()
    assert lists(unlawful(pool, np.array([0, 2]), 0.0)) == ([], [])
    assert lists(unlawful(pool, np.array([0, 1, 2]), 0.0)) == ([1], [])
    assert lists(unlawful(pool, np.array([1, 2]), 0.0)) == ([], [0])
    assert lists(unlawful(pool, np.array([0]), 0.0)) == ([], [2])
    tie = dataclasses.replace(pool, scores=np.array([0.5, 0.4995, 0.3], np.float32))
    assert lists(unlawful(tie, np.array([1, 2]), 0.0)) == ([], [])
    doubt = dataclasses.replace(pool, doubtful=np.array([False, False, True]))
    assert lists(unlawful(doubt, np.array([0]), 0.0)) == ([], [])
    other = dataclasses.replace(pool, groups=np.array([0, 1, 0]))
    assert lists(unlawful(other, np.array([0, 2]), 0.0)) == ([], [1])


def test_an_overlap_near_the_threshold_may_go_either_way() -> None:
    pool = dataclasses.replace(three(), iou_threshold=0.60005)
    assert lists(unlawful(pool, np.array([0, 1, 2]), 0.0)) == ([], [])
    assert lists(unlawful(pool, np.array([0, 2]), 0.0)) == ([], [])
    pool = dataclasses.replace(three(), iou_threshold=0.61)
    assert lists(unlawful(pool, np.array([0, 2]), 0.0)) == ([], [1])
    assert lists(unlawful(pool, np.array([0, 2]), 0.05)) == ([], [])


def test_the_limit() -> None:
    pool = dataclasses.replace(three(), limit=1)
    assert lists(unlawful(pool, np.array([0]), 0.0)) == ([], [])
    assert lists(unlawful(pool, np.array([2]), 0.0)) == ([], [0, 1])
    assert lists(unlawful(pool, np.array([0, 2]), 0.0)) == ([0, 2], [])
    near = dataclasses.replace(pool, scores=np.array([0.5, 0.1, 0.4995], np.float32))
    assert lists(unlawful(near, np.array([2]), 0.0)) == ([], [])


def test_each_box_is_found_once_and_the_nearest() -> None:
    pool = np.array([[0, 0, 5, 5], [0, 0, 5, 5.04], [9, 9, 12, 12]], np.float32)
    boxes = np.array([[0, 0, 5, 5.03], [0, 0, 5, 5.01], [9, 9, 12, 12.06]], np.float32)
    assert locate(boxes, pool).tolist() == [1, 0, -1]
    assert locate(boxes[:1].repeat(3, 0), pool).tolist() == [1, 0, -1]
    assert locate(boxes, pool, free=np.zeros(3, np.bool_)).tolist() == [-1] * 3
    assert locate(boxes, pool, free=np.array([True, False, True])).tolist() == [-1, 0, -1]
    assert locate(boxes, pool[:0]).tolist() == [-1] * 3
    assert locate(np.full((1, 4), np.nan, np.float32), pool).tolist() == [-1]


def test_a_pair_has_one_group_and_like_scores() -> None:
    pool = np.array([[0, 0, 5, 5], [0, 0, 5, 5.04], [0, 0, 5, 5]], np.float32)
    theirs = Labels(np.array([7, 2, 2]), np.array([0.5, 0.5, 0.9], np.float32))
    boxes = np.array([[0, 0, 5, 5]] * 4, np.float32)
    ours = Labels(np.array([2, 7, 3, 7]), np.array([0.5005, 0.5, 0.5, 0.502], np.float32))
    assert locate(boxes, pool, (ours, theirs)).tolist() == [1, 0, -1, -1]
    nothing = Labels(np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert locate(boxes, pool[:0], (ours, nothing)).tolist() == [-1] * 4
    assert locate(boxes[:0], pool, (nothing, theirs)).tolist() == []


def test_overlap_of_patches_by_hand() -> None:
    square = np.ones((4, 4), np.bool_)
    assert overlap((0, 0, square), (2, 2, square)) == (4, 28)
    assert overlap((0, 0, square), (9, 9, square)) == (0, 32)
    assert overlap((0, 0, ~square), (0, 0, ~square)) == (0, 0)


@pytest.mark.parametrize(
    ("overlaps", "passes"),
    [
        ([(1000, 1000)] * 5, [True, True]),
        ([(0, 0)], []),
        ([], []),
        ([(1000, 1000)] * 99 + [(989, 1000)], [True, False]),
        ([(998, 1000)] * 5, [False, True]),
        ([(998, 1000), *[(1000, 1000)] * 4], [True, True]),
        ([(48, 50)], [True, True]),  # two pixels of a small mask
        ([(47, 50)], [False, False]),
        ([(0, 500)], [False, False]),
    ],
)
def test_gates_on_masks_in_the_picture(overlaps: list[tuple[int, int]], passes: list[bool]) -> None:
    assert [bool(gate) for gate in pasted_gates(overlaps)] == passes


def test_the_limits_are_the_written_ones_where_masks_are_large() -> None:
    assert gates.pasted_limits([500, 10_000]) == (0.998, 0.99)
    assert gates.pasted_limits([]) == (0.999, 0.99)
    assert gates.pasted_limits([2000]) == (0.999, 0.99)
    assert gates.pasted_limits([100]) == (0.98, 0.98)
