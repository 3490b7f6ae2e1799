from __future__ import annotations

import numpy as np
import pytest

from pointrend_deploy.parity.gates import NEAR_TIE
from pointrend_deploy.parity.subdivision import points, replay


def line(step: float, size: int = 10_000) -> np.ndarray:
    return (-step * np.arange(size, dtype=np.float64)).reshape(1, 100, 100).astype(np.float32)


FIRST = np.arange(1000)[None]


def test_order_is_free() -> None:
    row = points.compare_points(0, FIRST, FIRST[:, ::-1], line(1.0))
    assert row
    assert (row.jaccard, row.strays, row.worst_gap) == (1.0, 0, 0.0)


def test_jaccard_and_strays_are_those_of_the_sets() -> None:
    other = FIRST.copy()
    other[0, :4] = [2000, 2001, 2002, 2003]
    row = points.compare_points(0, FIRST, other, line(1e-9))
    assert row.strays == 4
    assert row.jaccard == pytest.approx(996 / 1004)


def test_few_strays_near_the_kth_pass_and_far_ones_fail() -> None:
    near = FIRST.copy()
    near[0, -1] = 1000  # the next best, 1e-4 away
    assert points.compare_points(0, FIRST, near, line(1e-4))
    far = FIRST.copy()
    far[0, 0] = 9999
    row = points.compare_points(0, FIRST, far, line(1e-4))
    assert not row
    assert row.worst_gap == pytest.approx(0.9, rel=0.01)
    assert "from the K-th uncertainty" in row.problem


def test_a_gap_is_measured_on_both_sides() -> None:
    other = FIRST.copy()
    other[0, 0] = 1000  # drops the very best, takes a near one
    row = points.compare_points(0, FIRST, other, line(1e-4))
    assert not row
    assert row.worst_gap == pytest.approx(999e-4, rel=0.01)


def test_many_near_strays_fail_unless_they_are_equal_to_the_last_bit() -> None:
    other = np.arange(10, 1010)[None]
    assert not points.compare_points(0, FIRST, other, line(2e-6))
    flat = points.compare_points(0, FIRST, other, np.zeros((1, 100, 100), np.float32))
    assert flat
    assert (flat.strays, flat.exchangeable) == (10, 10)


def test_half_the_points_out_of_a_plateau_do_not_excuse_the_other_half() -> None:
    plateau = line(1.0)
    plateau[0, 0, 50:] = plateau[0, 1:, :] = -50.0
    other = FIRST.copy()
    other[0, :50] = np.arange(5000, 5050)  # ties with the K-th, but in place of better points
    row = points.compare_points(0, FIRST, other, plateau)
    assert not row
    assert row.exchangeable == 0


def test_the_scale_widens_near_ties() -> None:
    other = FIRST.copy()
    other[0, -1] = 1000
    gap = 10 * NEAR_TIE.limit
    assert not points.compare_points(0, FIRST, other, line(gap))
    assert points.compare_points(0, FIRST, other, line(gap), scale=20.0)


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (FIRST[:, :960], "960 points an image where 1000"),
        (FIRST.astype(np.float32), "not integers"),
        (FIRST + 9500, "outside its grid"),
        (FIRST - 1, "outside its grid"),
        (np.where(FIRST == 5, 6, FIRST), "twice"),
        (FIRST[0], "shape"),
    ],
)
def test_what_is_no_point_set_fails_and_is_said(candidate: np.ndarray, words: str) -> None:
    row = points.compare_points(0, FIRST, candidate, line(1.0))
    assert not row
    assert words in row.problem


def test_images_of_a_batch_are_compared_one_by_one() -> None:
    both = np.concatenate((FIRST, FIRST + 1000))
    swapped = both[::-1].copy()
    assert not points.compare_points(0, both, swapped, None)
    assert points.compare_points(0, both, both.copy(), None)


def test_logits_are_compared_at_common_points_only() -> None:
    left = np.array([[3, 1, 2]])
    right = np.array([[9, 2, 3]])
    values = np.array([[[30.0, 10.0, 20.0]]])
    others = np.array([[[99.0, 20.0, 31.0]]])
    a, b = points.common_logits(left, values, right, others)
    assert a.tolist() == [[20.0, 30.0]]
    assert b.tolist() == [[20.0, 31.0]]


def test_replay_gives_the_uncertainty_the_points_were_chosen_by() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    coarse = rng.standard_normal((2, 5, 6, 7)).astype(np.float32)
    tensor = torch.from_numpy(coarse)
    doubled = torch.nn.functional.interpolate(
        tensor, scale_factor=2.0, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(replay.double(coarse), doubled.numpy(), atol=2e-6)
    best = doubled.topk(2, dim=1).values.numpy()
    np.testing.assert_array_equal(replay.uncertainty(doubled.numpy()), best[:, 1] - best[:, 0])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 4), (5, 6), (2, 0)])
def test_reach_holds_every_pixel_a_point_can_change_and_no_more_than_its_width(
    row: int, column: int
) -> None:
    steps = [np.zeros((1, 6 * 2**t, 7 * 2**t), np.bool_) for t in range(3)]
    steps[0][0, row, column] = True
    reached = replay.reach(steps)
    grid = np.zeros((1, 1, 6, 7), np.float32)
    grid[0, 0, row, column] = 1.0
    changed = replay.double(replay.double(grid))[0, 0] != 0
    np.testing.assert_array_equal(reached[0], changed)
    assert reached[0].any(axis=1).sum() <= replay.reach_width(2)


def test_a_stray_of_the_last_step_reaches_itself() -> None:
    steps = [np.zeros((1, 4, 4), np.bool_), np.zeros((1, 8, 8), np.bool_)]
    steps[1][0, 5, 6] = True
    reached = replay.reach(steps)
    assert reached.sum() == 1
    assert reached[0, 5, 6]
    assert [replay.reach_width(i) for i in range(4)] == [1, 4, 10, 22]


def test_a_stray_where_an_earlier_one_reached_need_not_be_near_but_still_counts() -> None:
    other = FIRST.copy()
    other[0, 0] = 9999
    touched = np.zeros((1, 100, 100), np.bool_)
    touched[0, 0, 0] = touched[0, 99, 99] = True
    row = points.compare_points(0, FIRST, other, line(1e-4), excused=touched)
    assert row
    assert (row.strays, row.worst_gap) == (1, 0.0)
    touched[0, 99, 99] = False
    assert not points.compare_points(0, FIRST, other, line(1e-4), excused=touched)
    many = np.arange(10, 1010)[None]
    everywhere = np.ones((1, 100, 100), np.bool_)
    assert not points.compare_points(0, FIRST, many, line(2e-6), excused=everywhere)
