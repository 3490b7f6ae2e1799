"""Detections that follow from nearly tied proposals are excused; from others they are not."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from pointrend_deploy.model.network_input import network_input
from pointrend_deploy.parity.instance.boxes import detections_outcome
from pointrend_deploy.parity.instance.matching import box_iou
from pointrend_deploy.parity.instance.proposal_ties import open_choices, with_other_proposals
from pointrend_deploy.parity.instance.reference import TorchPicture
from pointrend_deploy.parity.instance.selection import Pool
from tests.fixtures import tiny_instance

FEW = tiny_instance.changed(tiny_instance.POINTREND, "rpn", pre_nms_topk=40, post_nms_topk=20)


def pool(boxes: list[list[float]], scores: list[float], kept: list[int], limit: int = 10) -> Pool:
    return Pool(
        boxes=np.array(boxes, np.float32),
        scores=np.array(scores, np.float32),
        groups=np.zeros(len(boxes), np.int64),
        doubtful=np.zeros(len(boxes), np.bool_),
        iou_threshold=0.7,
        limit=limit,
        score_tolerance=1e-3,
        kept=np.array(kept, np.int64),
    )


A, NEAR, APART = [0.0, 0, 100, 100], [0.0, 0, 100, 70.001], [200.0, 0, 300, 100]
UNDER = [0.0, 0, 100, 90]


def test_what_no_tie_touches_is_sure_and_alone() -> None:
    sure, possible = open_choices(pool([A, UNDER, APART], [3, 2, 1], [0, 2]), 0.0)
    assert sure.tolist() == possible.tolist() == [True, False, True]


def test_an_overlap_at_the_threshold_leaves_both_choices_open() -> None:
    sure, possible = open_choices(pool([A, NEAR, APART], [3, 2, 1], [0, 2]), 0.0)
    assert sure.tolist() == [True, False, True]
    assert possible.tolist() == [True, True, True]


def test_a_tie_of_scores_leaves_either_box() -> None:
    sure, possible = open_choices(pool([A, UNDER, APART], [2.0004, 2, 1], [0, 2]), 0.0)
    assert sure.tolist() == [False, False, True]
    assert possible.tolist() == [True, True, True]


def test_a_tie_brings_about_others() -> None:
    """Where NEAR may be kept it may suppress the box below it, which was kept so far."""
    below = [0.0, 0, 100, 60]
    sure, possible = open_choices(pool([A, NEAR, below], [3, 2, 1], [0, 2]), 0.0)
    assert sure.tolist() == [True, False, False]
    assert possible.tolist() == [True, True, True]


def test_the_last_place_may_go_to_either_of_two() -> None:
    other = [400.0, 0, 500, 100]
    for score, open_ in ((0.9995, True), (0.9, False)):
        made = pool([A, APART, other], [3, 1, score], [0, 1], limit=2)
        sure, possible = open_choices(made, 0.0)
        assert sure.tolist() == [True, False, False]
        assert possible.tolist() == [True, True, open_]


@cache
def reference(threshold: float, seed: int = 0) -> TorchPicture:
    """A picture's reference whose objectness is not all alike, as random weights make it."""
    recipe = tiny_instance.changed(FEW, "rpn", nms_threshold=threshold)
    model = tiny_instance.model(recipe, seed)
    model.proposal_generator.rpn_head.objectness_logits.weight.mul_(300.0)
    x = network_input(tiny_instance.picture(96, 128, seed), recipe.input)
    return TorchPicture(model, x, (96, 128))


def tied_thresholds() -> list[float]:
    """Overlaps of a kept proposal and one it suppresses, so that it alone decides."""
    found = reference(0.7).proposal_pool()
    rest = np.setdiff1d(np.arange(len(found.boxes)), found.kept)
    overlap = box_iou(found.boxes[rest], found.boxes[found.kept])
    overlap[found.groups[rest][:, None] != found.groups[found.kept][None]] = 0
    return sorted(float(value) for value in overlap.max(axis=1) if 0.7 < value < 0.85)


def test_a_swapped_proposal_is_excused_and_a_wrong_box_beside_it_is_not() -> None:
    """Reference and candidate suppress at thresholds on either side of one overlap."""
    swaps = 0
    for threshold in tied_thresholds():
        low, high = reference(threshold - 2e-5), reference(threshold + 2e-5)
        theirs, choices = low.detections(low.proposals)
        found, _ = high.detections(high.proposals)
        count = len(found.boxes)
        if not detections_outcome(theirs, found, count, choices).problems:
            continue
        swaps += 1
        assert with_other_proposals(low, found, count, 0.0).problems == []
        wrong = dataclasses.replace(found, boxes=found.boxes.copy())
        wrong.boxes[0, 0] += 0.3
        assert with_other_proposals(low, wrong, count, 0.0).problems
        if swaps == 2:
            return
    assert swaps, "no threshold made the detections differ: the test shows nothing"


def test_another_threshold_is_not_excused() -> None:
    low, high = reference(0.5), reference(0.8)
    found, _ = high.detections(high.proposals)
    assert with_other_proposals(low, found, len(found.boxes), 0.0).problems


@pytest.mark.parametrize("seed", range(3))
def test_the_references_own_detections_have_no_problem(seed: int) -> None:
    own = reference(0.7, seed)
    found, _ = own.detections(own.proposals)
    assert with_other_proposals(own, found, len(found.boxes), 0.0).problems == []
