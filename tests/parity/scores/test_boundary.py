from __future__ import annotations

import numpy as np
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.scores.boundary import (
    BoundaryIoU,
    LabelScores,
    band_distance,
    inner_bands,
)


def square(top: int, left: int, side: int, size: int = 20) -> np.ndarray:
    labels = np.zeros((size, size), np.uint8)
    labels[top : top + side, left : left + side] = 1
    return labels


def test_distance_is_a_share_of_the_diagonal_and_at_least_one() -> None:
    assert band_distance(1024, 2048) == 46  # 2 % of 2289.7
    assert band_distance(256, 256) == 7
    assert band_distance(1, 1) == 1


def test_the_band_of_a_square_by_hand() -> None:
    band = inner_bands(square(5, 5, 8), 1)
    inside = band & (square(5, 5, 8) == 1)
    assert inside.sum() == 8 * 8 - 6 * 6
    background = band & (square(5, 5, 8) == 0)
    # the frame of the picture, and the ring around the square
    assert background.sum() == (20 * 20 - 18 * 18) + (10 * 10 - 8 * 8)


def test_boundary_iou_of_a_shifted_square_by_hand() -> None:
    counted = BoundaryIoU(2, 1)
    counted.add(square(5, 6, 8), square(5, 5, 8))
    # rings of 28 pixels one column apart share two rows of 7, less nothing else: 6 + ... counted
    ring = {(r, c) for r in range(8) for c in range(8) if r in (0, 7) or c in (0, 7)}
    moved = {(r, c + 1) for r, c in ring}
    expected = len(ring & moved) / len(ring | moved)
    assert expected == pytest.approx(14 / 42)
    assert counted.per_class()[1] == pytest.approx(expected)


def test_iou_hides_what_boundary_iou_shows() -> None:
    large = square(10, 10, 80, size=100)
    grown = square(9, 9, 82, size=100)
    assert (large & grown).sum() / (large | grown).sum() > 0.95
    counted = BoundaryIoU(2, 1)
    counted.add(grown, large)
    assert counted.per_class()[1] == 0.0


def erosion_bands(labels: np.ndarray, distance: int, num_classes: int) -> np.ndarray:
    """The published recipe: per class, the mask less d erosions with a 3x3 square, border 0."""
    cv2 = pytest.importorskip("cv2", reason="opencv gives the published definition to hold against")
    band = np.zeros(labels.shape, np.bool_)
    for label in range(num_classes):
        mask = (labels == label).astype(np.uint8)
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
        band |= (mask - eroded).astype(bool)
    return band


@pytest.mark.parametrize("distance", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("shape", [(40, 57), (1, 30), (30, 1), (7, 7)])
def test_bands_equal_erosion_with_opencv(shape: tuple[int, int], distance: int) -> None:
    rng = np.random.default_rng(distance)
    blocks = rng.integers(0, 4, (shape[0] // 9 + 1, shape[1] // 9 + 1))
    labels = blocks.repeat(9, 0).repeat(9, 1)[: shape[0], : shape[1]].astype(np.uint8)
    np.testing.assert_array_equal(inner_bands(labels, distance), erosion_bands(labels, distance, 4))


def test_ignored_pixels_make_no_boundary_and_are_not_counted() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[:, 20:] = 1
    truth[10:30, 5:15] = 255
    guess = np.where(truth == 255, 1, truth)  # whatever was predicted there
    counted = BoundaryIoU(2, 2, ignore_label=255)
    counted.add(guess, truth)
    assert counted.per_class().tolist() == [1.0, 1.0]
    plain = BoundaryIoU(2, 2)
    plain.add(np.where(truth == 255, 0, truth), np.where(truth == 255, 0, truth))
    # the hole takes no band of its own: the same pixels, as it lies away from every band
    assert counted.areas.tolist() == plain.areas.tolist()


def test_sums_run_over_pictures_class_by_class() -> None:
    counted = BoundaryIoU(2, 1)
    counted.add(square(5, 5, 8), square(5, 5, 8))
    counted.add(square(5, 6, 8), square(5, 5, 8))
    assert counted.per_class()[1] == pytest.approx((28 + 14) / (28 + 42))


def test_mean_leaves_absent_classes_out() -> None:
    counted = BoundaryIoU(num_classes=7, distance_px=2)
    counted.add(square(5, 5, 8), square(5, 5, 8))
    assert counted.mean() == 1.0
    assert np.isnan(BoundaryIoU(3, 1).mean())


def boundary_iou_by_definition(prediction: np.ndarray, truth: np.ndarray, d: int) -> float:
    """Cheng et al., equation 1, of each class whose band the truth has, pixel by pixel."""
    height, width = truth.shape

    def band(labels: np.ndarray, label: int) -> set[tuple[int, int]]:
        found = set()
        for row, column in zip(*np.nonzero((labels == label) & (truth != 255)), strict=True):
            for r in range(row - d, row + d + 1):
                for c in range(column - d, column + d + 1):
                    inside = 0 <= r < height and 0 <= c < width
                    if not inside or (truth[r, c] != 255 and labels[r, c] != label):
                        found.add((int(row), int(column)))
        return found

    ious = []
    for label in range(6):
        expected, found = band(truth, label), band(prediction, label)
        if expected:
            ious.append(len(expected & found) / len(expected | found))
    return sum(ious) / len(ious)


@pytest.mark.parametrize("distance", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_the_mean_is_what_its_definition_says(seed: int, distance: int) -> None:
    """The truth lacks classes, is unlabelled in part, and classes occur in the prediction alone."""
    random = np.random.default_rng(seed)
    truth = random.choice([0, 1, 4, 255], (4, 5)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
    found = np.where(truth == 255, 5, np.roll(truth, 1, axis=1))
    found[found == 255] = 2
    found[3:8, 3:8] = 3
    counted = BoundaryIoU(6, distance, ignore_label=255)
    counted.add(found, truth)
    assert counted.areas[2, 3] > 0 and counted.areas[1, 3] == 0
    assert np.isnan(counted.per_class()[[2, 3, 5]]).all()
    assert counted.mean() == pytest.approx(boundary_iou_by_definition(found, truth, distance))


def test_a_planted_error_in_the_boundary_is_seen_in_every_band() -> None:
    scores = LabelScores(2)
    scores.add(square(30, 31, 40, size=100), square(30, 30, 40, size=100))
    assert all(band.mean() < 0.95 for band in scores.bands.values())
    assert scores.agreement < 1
    perfect = LabelScores(2)
    perfect.add(square(5, 5, 8), square(5, 5, 8))
    assert all(band.mean() == 1.0 for band in perfect.bands.values())
    assert perfect.agreement == 1.0


def test_other_sizes_and_labels_out_of_range_are_refused() -> None:
    with pytest.raises(DeployError, match="two sizes"):
        BoundaryIoU(2).add(square(5, 5, 8), square(5, 5, 8, size=21))
    with pytest.raises(DeployError, match="label 1"):
        BoundaryIoU(1).add(square(5, 5, 8), square(5, 5, 8))
