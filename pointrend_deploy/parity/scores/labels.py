"""Label maps: agreement, confusion matrix, IoU. A label map is (H, W) integers, classes 0..C-1.

mIoU is detectron2's (``SemSegEvaluator`` in ``evaluation/sem_seg_evaluation.py``): areas are summed
over all pictures, and the mean is over the classes that the truth has. A class that is only
predicted has no IoU of its own; its pixels lower the IoU of the classes they were taken from.

The points lost (:func:`label_points`) compare a graph's labels with the FP32 graph's own, so no
truth is needed and any pictures will do: 0 is the same labels, 100 nothing in common.

1 - IoU of two areas is a distance (Jaccard's). By the triangle inequality no class that FP32 shows
loses more IoU with any truth than its own distance, and a class that FP32 does not show has none to
lose. So where the truth has at least as many classes as FP32 shows, the mIoU falls by at most the
points lost, on these pictures; where it has fewer, by at most their ratio times that. Usually it
falls by much less: most pixels that change are on boundaries, where FP32 is wrong as often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import DeployError

Array = npt.NDArray[Any]


def agreement(prediction: Array, other: Array, ignore_label: int | None = None) -> float:
    """Return the share (0..1) of pixels with the same label; 1.0 where there are no pixels.

    Args:
        prediction: integer array.
        other: integer array of the same shape.
        ignore_label: pixels where ``other`` has this value are left out.

    Raises:
        DeployError: the shapes differ.
    """
    check_shapes(prediction, other)
    same = prediction == other
    if ignore_label is not None:
        same = same[other != ignore_label]
    return float(same.mean()) if same.size else 1.0


def confusion(
    prediction: Array, truth: Array, num_classes: int, ignore_label: int | None = None
) -> npt.NDArray[np.int64]:
    """Compute the confusion matrix of one picture.

    Args:
        prediction: (H, W) labels in 0..C-1.
        truth: (H, W) labels in 0..C-1, or ``ignore_label``.
        num_classes: C.
        ignore_label: value in the truth that is not counted.

    Returns:
        (C, C) int64: row = truth, column = prediction. Matrices of several pictures may be added.

    Raises:
        DeployError: the shapes differ, or a label is out of range; the message names it.
    """
    check_shapes(prediction, truth)
    counted = np.ones(truth.shape, np.bool_) if ignore_label is None else truth != ignore_label
    expected, found = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    check_range(expected, num_classes, "the truth")
    check_range(found, num_classes, "the prediction")
    flat = np.bincount(expected * num_classes + found, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def areas(matrix: Array) -> npt.NDArray[np.int64]:
    """Return the areas of a (C, C) confusion matrix that IoU is made of.

    Returns:
        (3, C) int64, in pixels: right, in the truth, and predicted, by class.
    """
    return np.stack((np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)))


def iou_of_areas(areas: Array) -> npt.NDArray[np.float64]:
    """Return the IoU of each class from areas.

    Args:
        areas: (..., 3, C) right, in the truth, and predicted, by class; see :func:`areas`.

    Returns:
        (..., C); NaN for a class that the truth does not have, even where it is predicted.
    """
    right, expected, found = np.moveaxis(np.asarray(areas, np.float64), -2, 0)
    out = np.full(right.shape, np.nan)
    np.divide(right, expected + found - right, out=out, where=expected > 0)
    return out


def iou_per_class(matrix: Array) -> npt.NDArray[np.float64]:
    """Return the IoU of each class, (C,), from a (C, C) confusion matrix.

    It is NaN for a class that the truth does not have.
    """
    return iou_of_areas(areas(matrix))


def mean_iou(matrix: Array) -> float:
    """Return the mean IoU of a (C, C) confusion matrix; NaN where it counts no pixel.

    The mean is over the classes that the truth has, as detectron2's is.
    """
    return mean_of_present(iou_per_class(matrix))


def mean_of_present(values: Array) -> float:
    """Return the mean of the values that are not NaN; NaN where there are none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def check_shapes(prediction: Array, truth: Array) -> None:
    """Check that two label maps have one size. Raises DeployError naming both sizes."""
    if prediction.shape != truth.shape:
        raise DeployError(
            f"label maps of two sizes: {prediction.shape} and {truth.shape}",
            "both must be of the picture's own size",
        )


def check_range(labels: Array, num_classes: int, side: str) -> None:
    """Check that labels are in 0..C-1. Raises DeployError naming the first that is not."""
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        raise DeployError(
            f"{side} has label {int(labels[outside][0])}, but the classes are "
            f"0 to {num_classes - 1}",
            "the pixel values of label maps are class ids, or the recipe's ignore_label",
        )


def label_points(theirs: Sequence[Array], ours: Iterable[Array], num_classes: int) -> float | None:
    """Return the points that labels lose: 100 (1 - mIoU), over the classes that FP32 shows.

    Args:
        theirs: the FP32 graph's (H, W) labels in 0..C-1 of each picture.
        ours: the other graph's, of the same pictures in the same order; taken one by one.
        num_classes: C.

    Returns:
        0..100; None where there is no pixel.

    Raises:
        DeployError: label maps of two sizes, or a label out of range.
    """
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for before, after in zip(theirs, ours, strict=True):
        matrix += confusion(after, before, num_classes)
    return 100.0 * (1.0 - mean_iou(matrix)) if matrix.any() else None


def classes_shown(labels: Iterable[Array]) -> int:
    """Return how many classes occur in label maps."""
    return len(set().union(*(np.unique(each).tolist() for each in labels)))
