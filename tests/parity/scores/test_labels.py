from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.scores import labels as masks

Labels = npt.NDArray[np.uint8]
TRUTH = np.array([[0, 0, 1], [1, 1, 255]], np.uint8)
FOUND = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)


def test_confusion_by_hand() -> None:
    matrix = masks.confusion(FOUND, TRUTH, 4, ignore_label=255)
    assert matrix[:2, :2].tolist() == [[1, 1], [1, 2]]
    assert matrix.sum() == 5


def test_iou_by_hand_and_absent_classes_are_left_out() -> None:
    matrix = masks.confusion(FOUND, TRUTH, 4, ignore_label=255)
    iou = masks.iou_per_class(matrix)
    assert iou[:2].tolist() == [1 / 3, 2 / 4]
    assert np.isnan(iou[2:]).all()
    assert masks.mean_iou(matrix) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert np.isnan(masks.mean_iou(np.zeros((3, 3), int)))


def test_a_class_only_predicted_is_not_averaged_over() -> None:
    matrix = masks.confusion(np.array([[0, 2]]), np.array([[0, 0]]), 3)
    assert np.isnan(masks.iou_per_class(matrix)[1:]).all()
    assert masks.mean_iou(matrix) == 0.5


def miou_by_definition(pairs: list[tuple[Labels, Labels]], classes: int, ignore: int) -> float:
    """The mean over the truth's classes of intersection over union, pixel by pixel in sets."""
    ious = []
    for label in range(classes):
        expected, found = set(), set()
        for number, (prediction, truth) in enumerate(pairs):
            for place in np.ndindex(truth.shape):
                if truth[place] != ignore:
                    expected |= {(number, *place)} if truth[place] == label else set()
                    found |= {(number, *place)} if prediction[place] == label else set()
        if expected:
            ious.append(len(expected & found) / len(expected | found))
    return sum(ious) / len(ious) if ious else float("nan")


@pytest.mark.parametrize("seed", range(12))
def test_mean_iou_is_what_its_definition_says(seed: int) -> None:
    """The truth lacks classes, is unlabelled in part, and classes occur in the prediction alone."""
    random = np.random.default_rng(seed)
    pairs, matrix = [], np.zeros((6, 6), np.int64)
    for _ in range(3):
        truth = random.choice([0, 1, 4, 255], (7, 9)).astype(np.uint8)
        kept = random.random(truth.shape) < 0.7
        found = np.where(kept & (truth != 255), truth, random.integers(0, 6, truth.shape))
        pairs.append((found.astype(np.uint8), truth))
        matrix += masks.confusion(*pairs[-1], 6, ignore_label=255)
    assert masks.mean_iou(matrix) == pytest.approx(miou_by_definition(pairs, 6, 255))
    only_predicted = (matrix.sum(axis=0) > 0) & (matrix.sum(axis=1) == 0)
    assert only_predicted[[2, 3, 5]].all()
    assert np.isnan(masks.iou_per_class(matrix)[only_predicted]).all()


def test_a_prediction_in_unlabelled_pixels_counts_nothing() -> None:
    truth = np.array([[0, 0, 255, 255]])
    for found in ([0, 0, 1, 2], [0, 0, 0, 0]):
        assert masks.mean_iou(masks.confusion(np.array([found]), truth, 3, 255)) == 1.0


def test_agreement_leaves_ignored_pixels_out() -> None:
    assert masks.agreement(FOUND, TRUTH) == pytest.approx(3 / 6)
    assert masks.agreement(FOUND, TRUTH, ignore_label=255) == pytest.approx(3 / 5)
    assert masks.agreement(TRUTH, TRUTH) == 1.0


def test_swapped_classes_are_seen() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (20, 20))
    swapped = np.array([1, 0, 2])[labels]
    assert masks.mean_iou(masks.confusion(labels, labels, 3)) == 1.0
    assert masks.mean_iou(masks.confusion(swapped, labels, 3)) == pytest.approx(1 / 3)


def test_labels_out_of_range_and_other_sizes_are_refused_by_value() -> None:
    with pytest.raises(DeployError, match=r"truth has label 255.* 0 to 3"):
        masks.confusion(FOUND, TRUTH, 4)
    with pytest.raises(DeployError, match="prediction has label 2"):
        masks.confusion(np.full((1, 1), 2), np.zeros((1, 1), int), 2)
    with pytest.raises(DeployError, match="two sizes"):
        masks.agreement(FOUND, TRUTH[:1])
