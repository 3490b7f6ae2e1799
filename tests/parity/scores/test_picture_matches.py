"""Average precision of drawn pictures, against the evaluator on a truth with copies of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.parity.scores.intervals import intervals
from pointrend_deploy.parity.scores.picture_matches import assign
from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.truth.annotations import InstanceTruth, TruthPicture
from tests.fixtures.instance_data import Thing, found, recipe, scene
from tests.parity.scores.test_average_precision import HW, truth

MEASURES = ("box AP", "mask AP", "boundary AP")


def made(count: int) -> tuple[list[list[Thing]], list[Instances]]:
    """Scenes of other sizes, and detections that are moved, missing, doubled and made up."""
    rng = np.random.default_rng(1)
    scenes, detected = [], []
    for number in range(count):
        things = scene(number)
        if number == 2:
            things = []  # detections there are false
        if number % 3 == 1:
            things[0] = replace(things[0], crowd=True)
        scenes.append(things)
        shown = []
        for thing in [*things, *things[:2], *scene(100 + number)[:1]]:
            step = tuple(rng.integers(-4, 5, 2))
            shown.append(Thing(thing.label, np.roll(thing.mask, step, (0, 1))))
        scores = rng.permutation(len(shown)) / 50 + rng.random() / 100
        detected.append(found(shown, scores.tolist()))
    return scenes, detected


def copies(scenes: list[list[Thing]], detected: list[Instances], counts: np.ndarray) -> Scorer:
    """A truth with each picture as often as a draw has it, scored by the evaluator itself."""
    chosen = [number for number, times in enumerate(counts) for _ in range(times)]
    known = truth([scenes[number] for number in chosen])
    scorer = Scorer(known, recipe())
    for picture, number in zip(known.pictures, chosen, strict=True):
        scorer.add(picture.image_id, {"bundle": detected[number]})
    return scorer


def test_the_ap_of_a_draw_is_the_evaluators_on_its_pictures() -> None:
    scenes, detected = made(9)
    samples = copies(scenes, detected, np.ones(9, int)).samples("bundle")
    assert samples is not None and samples.pictures == 9
    rng = np.random.default_rng(3)
    counts = np.stack([np.ones(9, int), *(rng.multinomial(9, [1 / 9] * 9) for _ in range(5))])
    drawn = samples.scores(counts)
    for row, each in enumerate(counts):
        rows = copies(scenes, detected, each).rows(("bundle",))
        expected = {f"{one.measure} AP": one.ap for one in rows}
        assert {name: drawn[name][row] for name in MEASURES} == pytest.approx(expected, abs=1e-9)
    assert 0.1 < drawn["mask AP"][0] < 0.95


def test_a_draw_without_objects_has_no_ap() -> None:
    scenes, detected = made(4)
    samples = copies(scenes, detected, np.ones(4, int)).samples("bundle")
    assert samples is not None
    drawn = samples.scores(np.array([[0, 0, 4, 0], [4, 0, 0, 0]]))
    for name in MEASURES:
        assert np.isnan(drawn[name][0]) and 0 <= drawn[name][1] <= 1


def test_a_side_without_detections_has_ap_0_in_every_draw() -> None:
    scenes, _ = made(10)
    samples = copies(scenes, [found([])] * 10, np.ones(10, int)).samples("bundle")
    rows = intervals(samples, samples)
    assert [row.score for row in rows] == list(MEASURES)
    assert {(row.low, row.value, row.high) for row in rows} == {(0.0, 0.0, 0.0)}


def test_assignment_by_hand() -> None:
    """An object is taken once, a crowd any number of times and only where no object is free."""
    overlaps = np.array([[0.9, 0.6], [0.8, 0.7], [0.55, 0.2], [0.3, 0.4]])
    right, ignored = assign(overlaps, np.array([False, True]), np.array([0.5, 0.75]))
    assert right.tolist() == [[True, False, False, False], [True, False, False, False]]
    assert ignored.tolist() == [[False, True, False, False], [False, False, False, False]]
    alone = np.array([False, False])
    best, _ = assign(np.array([[0.6, 0.8], [0.2, 0.7]]), alone, np.array([0.5]))
    assert best.tolist() == [[True, False]], "the first takes the object it overlaps most"
    last, _ = assign(np.array([[0.8, 0.8], [0.9, 0.0]]), alone, np.array([0.5]))
    assert last.tolist() == [[True, True]], "of equal overlaps the evaluator takes the last"
    none, nothing = assign(np.zeros((3, 0)), np.zeros(0, np.bool_), np.array([0.5]))
    assert not none.any() and not nothing.any()


def test_a_side_that_was_never_added_has_no_samples() -> None:
    picture = TruthPicture(3, "a", Path("a.png"), HW)
    scorer = Scorer(InstanceTruth("made", (picture,), ()), recipe())
    assert scorer.samples("int8") is None
