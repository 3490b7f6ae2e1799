"""What is lost against FP32: known losses must come out as such."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pointrend_deploy.parity.instance.matching import detection_points, mask_ious
from pointrend_deploy.parity.scores.labels import (
    classes_shown,
    confusion,
    label_points,
    mean_iou,
)
from pointrend_deploy.run.instance.instances import Instances

HW = (40, 60)
Box = tuple[int, int, int, int]
Thing = tuple[Box, int, float]
"""Box, class and score of a thing that fills its box."""


def halves(columns: int) -> npt.NDArray[np.uint8]:
    """Class 0 in the first columns, class 1 in the others."""
    labels = np.ones(HW, np.uint8)
    labels[:, :columns] = 0
    return labels


def things(*each: Thing) -> Instances:
    boxes = np.array([box for box, _, _ in each], np.float32).reshape(-1, 4)
    patches = [(y, x, np.ones((b - y, r - x), np.bool_)) for (x, y, r, b), _, _ in each]
    return Instances(
        boxes=boxes,
        scores=np.array([score for _, _, score in each], np.float32),
        classes=np.array([label for _, label, _ in each], np.int64),
        hw=HW,
        patches=patches,
    )


FIRST: Thing = ((0, 0, 20, 20), 0, 0.9)
SECOND: Thing = ((30, 10, 50, 30), 1, 0.8)


def test_labels_alike_lose_nothing_and_changed_ones_what_their_iou_says() -> None:
    before = [halves(30), halves(20)]
    assert label_points(before, before, 5) == 0.0
    # 30 columns of class 0 become 24: IoU 24/30 of class 0, 30/36 of class 1
    assert label_points([halves(30)], [halves(24)], 5) == pytest.approx(
        100 * (1 - (24 / 30 + 30 / 36) / 2)
    )


def test_pictures_are_counted_together() -> None:
    lost = label_points([halves(30), halves(30)], [halves(24), halves(30)], 5)
    assert lost == pytest.approx(100 * (1 - (54 / 60 + 60 / 66) / 2))


def test_classes_that_fp32_does_not_show_are_not_averaged_over() -> None:
    after = halves(30)
    after[0, 0] = 4
    lost = label_points([halves(30)], [after], 5)
    assert lost == pytest.approx(100 * (1 - (1199 / 1200 + 1) / 2))
    assert classes_shown([halves(30), after]) == 3


def test_no_pixel_is_no_loss_that_could_be_told() -> None:
    nothing = np.zeros((0, 3), np.uint8)
    assert label_points([nothing], [nothing], 5) is None


@pytest.mark.parametrize("seed", range(20))
def test_against_any_truth_no_more_is_lost(seed: int) -> None:
    """Where the truth has fewer classes than FP32 shows, the bound grows by their ratio."""
    random = np.random.default_rng(seed)
    truth, before = (random.integers(0, 4, (12, 12)) for _ in range(2))
    if seed % 2:
        truth = truth.clip(1, 2)
    truth = np.where((random.random((12, 12)) < 0.7) & (before % 3 > 0), before, truth)
    after = np.where(random.random((12, 12)) < random.random(), truth, before)
    after = np.where(random.random((12, 12)) < 0.1, random.integers(0, 4, (12, 12)), after)

    def miou(labels: npt.NDArray[Any]) -> float:
        return mean_iou(confusion(labels, truth, 4))

    lost = label_points([before], [after], 4)
    assert lost is not None
    more = max(1.0, len(np.unique(before)) / len(np.unique(truth)))
    assert (more > 1) is bool(seed % 2)
    assert 100 * (miou(before) - miou(after)) <= lost * more + 1e-9


def test_detections_alike_lose_nothing() -> None:
    both = [things(FIRST, SECOND), things()]
    assert detection_points(both, both) == 0.0


def test_a_thing_lost_and_one_made_up_cost_the_same() -> None:
    one, two = [things(FIRST)], [things(FIRST, SECOND)]
    assert detection_points(two, one) == pytest.approx(100 / 3)
    assert detection_points(one, two) == pytest.approx(100 / 3)


def test_a_mask_that_changed_costs_what_its_iou_says() -> None:
    smaller: Thing = ((0, 0, 15, 20), 0, 0.9)
    assert detection_points([things(FIRST)], [things(smaller)]) == pytest.approx(25.0)


def test_another_class_does_not_answer() -> None:
    other: Thing = (FIRST[0], 1, 0.9)
    assert detection_points([things(FIRST)], [things(other)]) == 100.0


def test_the_best_of_several_answers() -> None:
    poor: Thing = ((0, 0, 5, 20), 0, 0.95)
    ious = mask_ious(things(FIRST), things(poor, FIRST))
    np.testing.assert_allclose(ious, [[0.25, 1.0]])


def test_a_score_that_falls_below_the_threshold_costs_nothing() -> None:
    hesitant: Thing = (FIRST[0], 0, 0.45)
    assert detection_points([things(FIRST)], [things(hesitant)]) == 0.0
    assert detection_points([things(FIRST, hesitant)], [things(FIRST)]) == 0.0


def test_what_is_hardly_seen_is_not_missed_where_something_is_confident() -> None:
    faint: Thing = (SECOND[0], 1, 0.1)
    assert detection_points([things(FIRST, faint)], [things(FIRST)]) == 0.0
    assert detection_points([things(faint)], [things()]) == 100.0, "all there is, so it counts"


def test_nothing_found_by_fp32_is_no_loss_that_could_be_told() -> None:
    assert detection_points([things(), things()], [things(FIRST), things()]) is None


def test_empty_masks_and_pictures_without_detections_divide_by_nothing() -> None:
    empty = things(FIRST)
    empty.patches[0][2][:] = False  # type: ignore[index]
    assert detection_points([empty], [empty]) == 0.0
    assert detection_points([things(FIRST), things()], [things(), things()]) == 100.0
