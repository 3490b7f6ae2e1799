from __future__ import annotations

import numpy as np
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.scores import labels as masks

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


def test_a_class_only_predicted_counts_as_zero() -> None:
    matrix = masks.confusion(np.array([[0, 2]]), np.array([[0, 0]]), 3)
    assert masks.iou_per_class(matrix)[2] == 0.0
    assert masks.mean_iou(matrix) == pytest.approx(0.25)


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
