"""Intervals of scores, against draws and scores made another way."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest

from pointrend_deploy.parity.scores.boundary import LabelScores
from pointrend_deploy.parity.scores.intervals import (
    DRAWS,
    DRAWS_OF_MANY,
    LEAST_PICTURES,
    LabelSamples,
    draw,
    intervals,
)
from pointrend_deploy.parity.scores.labels import confusion, mean_iou

Labels = npt.NDArray[np.uint8]
Pairs = list[tuple[Labels, Labels]]


def pairs(count: int, wrong: float, seed: int = 0) -> Pairs:
    """Pictures whose truths lack classes, with a part of the labels wrong; more in later ones."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        truth = rng.choice(rng.permutation(5)[:3], (12, 12)).astype(np.uint8)
        truth[0] = 255
        noise = rng.random(truth.shape) < wrong * (1 + number / count)
        found.append((np.where(noise, rng.integers(0, 5, truth.shape), truth), truth))
        found[-1][0][truth == 255] = 3
    return found


def samples(shown: Pairs) -> LabelSamples:
    made = LabelSamples()
    for prediction, truth in shown:
        one = LabelScores(5, 255)
        one.add(prediction, truth)
        made.add(one)
    return made


def miou(shown: Pairs) -> float:
    return mean_iou(sum(confusion(p, t, 5, 255) for p, t in shown))


def test_every_draw_has_as_many_pictures_and_none_is_favoured() -> None:
    counts = draw(12)
    assert counts.shape == (DRAWS, 12)
    assert (counts.sum(axis=1) == 12).all()
    assert (draw(12) == counts).all(), "the same pictures give the same intervals"
    # each mean is of 1,000 draws whose standard deviation is sqrt(11 / 12)
    assert np.abs(counts.mean(axis=0) - 1).max() < 4 * np.sqrt(11 / 12 / DRAWS)
    assert len(draw(1001)) == DRAWS_OF_MANY
    assert counts.std() == pytest.approx(np.sqrt(11 / 12), rel=0.03)


def test_the_score_of_a_draw_is_that_of_its_pictures_together() -> None:
    shown = pairs(6, 0.3)
    counts = np.array([[1, 1, 1, 1, 1, 1], [3, 0, 0, 2, 1, 0], [0, 6, 0, 0, 0, 0]])
    found = samples(shown).scores(counts)
    assert set(found) == {"mIoU", "boundary IoU, 2 px", "boundary IoU, 2 %"}
    for row, each in enumerate(counts):
        chosen = [pair for pair, times in zip(shown, each, strict=True) for _ in range(times)]
        assert found["mIoU"][row] == pytest.approx(miou(chosen))
        together = LabelScores(5, 255)
        for pair in chosen:
            together.add(*pair)
        for band in ("2 px", "2 %"):
            assert found[f"boundary IoU, {band}"][row] == pytest.approx(together.bands[band].mean())


def test_intervals_are_those_of_an_independent_bootstrap() -> None:
    good, poor = pairs(20, 0.1), pairs(20, 0.12)
    row = next(r for r in intervals(samples(poor), samples(good)) if r.score == "mIoU")
    assert row.value == pytest.approx(miou(poor))
    assert row.change == pytest.approx(miou(poor) - miou(good))
    assert (row.pictures, row.draws) == (20, DRAWS)

    picking = random.Random(4)
    matrices = [[confusion(p, t, 5, 255) for p, t in side] for side in (poor, good)]
    scores, changes = [], []
    for _ in range(2000):
        drawn = [picking.randrange(20) for _ in range(20)]
        own, other = (mean_iou(sum(side[number] for number in drawn)) for side in matrices)
        scores.append(own)
        changes.append(own - other)
    for low, high, values in (
        (row.low, row.high, sorted(scores)),
        (row.change_low, row.change_high, sorted(changes)),
    ):
        expected = values[50], values[1950]
        length = expected[1] - expected[0]
        assert low == pytest.approx(expected[0], abs=0.1 * length)
        assert high == pytest.approx(expected[1], abs=0.1 * length)


def test_a_loss_in_every_picture_is_told_from_none() -> None:
    good = pairs(20, 0.1)
    same = next(r for r in intervals(samples(good), samples(good)) if r.score == "mIoU")
    assert (same.change, same.change_low, same.change_high) == (0.0, 0.0, 0.0)
    assert same.holds_zero and same.low < same.value < same.high
    worse = next(r for r in intervals(samples(pairs(20, 0.3)), samples(good)) if r.score == "mIoU")
    assert worse.change_high < 0 and not worse.holds_zero
    mixed = [*pairs(20, 0.1, seed=1)[:10], *good[10:]]
    other = [*good[:10], *pairs(20, 0.1, seed=1)[10:]]
    # the truths differ, so this is a change with pictures on both sides of 0
    either = next(r for r in intervals(samples(mixed), samples(other)) if r.score == "mIoU")
    assert either.change_low < 0 < either.change_high and either.holds_zero


def test_a_paired_difference_is_surer_than_either_score() -> None:
    good, poor = pairs(20, 0.3), [*pairs(20, 0.3)[:-1], pairs(20, 0.4)[-1]]
    row = next(r for r in intervals(samples(poor), samples(good)) if r.score == "mIoU")
    assert row.change_high - row.change_low < (row.high - row.low) / 2


def test_few_pictures_have_no_interval() -> None:
    few = samples(pairs(LEAST_PICTURES - 1, 0.1))
    assert intervals(few, few) == ()
    assert intervals(samples([]), samples([])) == ()
    assert intervals(None, few) == ()
    enough = samples(pairs(LEAST_PICTURES, 0.1))
    assert len(intervals(enough, enough)) == 3
    assert intervals(enough, few) == ()


def test_a_draw_without_any_labelled_pixel_counts_for_nothing() -> None:
    blank = np.full((12, 12), 255, np.uint8)
    shown = [(pairs(1, 0.1)[0][0], blank)] * 10 + pairs(1, 0.1)
    row = next(r for r in intervals(samples(shown), samples(shown)) if r.score == "mIoU")
    assert row.draws == int((draw(11)[:, 10] > 0).sum()) < DRAWS
    assert row.low == row.value == row.high
