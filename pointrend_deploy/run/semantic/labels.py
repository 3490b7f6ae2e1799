"""From the canvas back to the picture: labels at the picture's own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import DeployError

LabelsFrom = Literal["exact", "logits-bilinear", "labels-nearest"]
"""How labels at the picture's size came about; see :func:`labels_at_picture_size`."""
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
HW = tuple[int, int]
_STRIP_VALUES = 1 << 18
"""Values of one class in a strip of rows: 1 MiB in float32, so that a strip stays in the cache."""


def labels_at_picture_size(
    labels: UInt8 | None, logits: Float32 | None, fitted_hw: HW, picture_hw: HW
) -> tuple[UInt8, LabelsFrom]:
    """Find the label of every pixel of the picture.

    Args:
        labels: (Hp, Wp) uint8 on the canvas, or None where they are not exported.
        logits: (C, Hp, Wp) float32 on the canvas, or None where they are not exported.
        fitted_hw: height and width of the picture on the canvas.
        picture_hw: its own height and width.

    Returns:
        The labels, (H, W) uint8, and how they came about: ``exact`` (the picture was not resized:
        the graph's own labels), ``logits-bilinear`` (logits resized, then argmax, as detectron2
        does) or ``labels-nearest`` (labels resized; the bundle exports no logits).

    Raises:
        DeployError: both labels and logits are None.
    """
    height, width = fitted_hw
    if fitted_hw == picture_hw and labels is not None:
        return np.ascontiguousarray(labels[:height, :width]), "exact"
    if logits is not None:
        crop = logits[:, :height, :width]
        return resize_argmax(crop, picture_hw), (
            "exact" if fitted_hw == picture_hw else "logits-bilinear"
        )
    if labels is None:
        raise DeployError(
            "this bundle exports neither labels nor logits",
            "export it again with --outputs labels or --outputs labels,logits",
        )
    return resize_nearest(labels[:height, :width], picture_hw), "labels-nearest"


def class_shares(labels: UInt8, names: Sequence[str]) -> dict[str, float]:
    """Compute the share of the pixels of each class that occurs.

    Args:
        labels: class numbers, (H, W) uint8, all below the number of names.
        names: of the classes.

    Returns:
        Shares in (0, 1], rounded to six digits, by name in the classes' order.
    """
    counts = np.bincount(labels.reshape(-1), minlength=len(names))
    return {
        name: round(float(n) / labels.size, 6) for name, n in zip(names, counts, strict=True) if n
    }


def resize_nearest(labels: UInt8, out_hw: HW) -> UInt8:
    """Resize labels to the nearest pixel centre, as PyTorch's ``nearest-exact``.

    Output i takes input floor((i + 0.5) * n_in / n_out), computed in integers.

    Args:
        labels: (h, w) uint8.
        out_hw: the new height and width.
    """
    rows = _nearest(labels.shape[0], out_hw[0])
    columns = _nearest(labels.shape[1], out_hw[1])
    return np.ascontiguousarray(labels[rows][:, columns])


def _nearest(size: int, out_size: int) -> npt.NDArray[np.int64]:
    return (2 * np.arange(out_size, dtype=np.int64) + 1) * size // (2 * out_size)


def resize_argmax(logits: Float32, out_hw: HW) -> UInt8:
    """Resize logits bilinearly and take the argmax over the classes.

    The resize is ``interpolate(mode="bilinear", align_corners=False)`` of PyTorch, in its float32
    arithmetic: pixel centres, edges clamped, no widened kernel when shrinking; columns are blended
    first, then rows. Ties go to the lower class. The work is done in strips of rows, class by
    class: the resized logits are never in memory whole, and a few MiB suffice for any size.

    Args:
        logits: (C, h, w) float32, C up to 256.
        out_hw: the new height and width.

    Returns:
        (H, W) uint8.
    """
    classes, height, width = logits.shape
    out_h, out_w = out_hw
    labels = np.zeros(out_hw, np.uint8)
    top, bottom, down = _taps(height, out_h)
    left, right, along = _taps(width, out_w)
    rows_a_strip = max(1, _STRIP_VALUES // out_w)
    for start in range(0, out_h, rows_a_strip):
        strip = slice(start, min(start + rows_a_strip, out_h))
        needed, places = np.unique(np.concatenate([top[strip], bottom[strip]]), return_inverse=True)
        upper, lower = np.split(places.reshape(-1), 2)
        weight = down[strip, None]
        best: Float32 | None = None
        for label in range(classes):
            rows = logits[label][needed]
            wide = rows[:, left] if out_w != width else rows
            if out_w != width:
                wide = _blend(wide, rows[:, right], along)
            plane = _blend(wide[upper], wide[lower], weight) if out_h != height else wide[upper]
            if best is None:
                best = plane
            else:
                better = plane > best
                np.copyto(labels[strip], np.uint8(label), where=better)
                np.copyto(best, plane, where=better)
    return labels


def _blend(first: Float32, second: Float32, weight: Float32) -> Float32:
    """(1 - weight) * first + weight * second; both arguments are overwritten."""
    first *= np.float32(1) - weight
    second *= weight
    first += second
    return first


def _taps(size: int, out_size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float32]:
    """First and second input index of each output, and the second's weight, in float32 steps."""
    scale = np.float32(size) / np.float32(out_size)
    centre = (np.arange(out_size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    centre = np.maximum(centre, np.float32(0))
    first = np.minimum(centre.astype(np.int64), size - 1)
    second = np.minimum(first + 1, size - 1)
    return first, second, (centre - first.astype(np.float32)).astype(np.float32)
