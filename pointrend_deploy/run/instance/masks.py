"""Masks at the picture's size: pasted from their boxes, kept packed, encoded as COCO's RLE.

Pasting computes the same function as the reference (after detectron2's layers/mask_ops.py), and
with the same arithmetic where it decides a pixel: PyTorch's, in float32 with fused multiply-adds.

The run-length encoding is written here rather than taken from pycocotools, because a device that
runs a bundle then needs no package beside numpy and Pillow, and because pycocotools encodes whole
pictures, where a patch needs no mask of the picture's size. Source of the format: cocoapi,
common/maskApi.c (rleEncode and rleToString); the tests compare the two byte by byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypedDict, overload

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Patch = tuple[int, int, npt.NDArray[np.bool_]]
"""Row and column of a window's upper left pixel in the picture, and the window's covered pixels,
(h, w) bool.

Pixels outside the window are not covered."""
Taps = tuple[Int64, Int64, Float32]
"""Along one axis, by output pixel: cells on either side, and the weight of the second."""
MASK_THRESHOLD = 0.5
_TOO_NEAR = 4e-6
"""Samples this near the threshold are computed again in the reference's order of rounding; the two
orders differ by a few units in the last place of a number below 2, which is 2.4e-7."""
_STRIP_PIXELS = 1 << 17
"""Pixels in a strip of rows: half a MiB in float32, so that a strip stays in the cache."""


def paste_mask(probabilities: Float32, box: Float32, picture_hw: tuple[int, int]) -> Patch:
    """Find the pixels of the picture that a mask covers.

    The mask is sampled bilinearly at the pixel centres, once, blending with zero outside its box;
    a pixel is covered where the sample is at least one half. Only the box's own window is computed,
    so time and memory grow with the box, not with the picture.

    Args:
        probabilities: (S, S) float32 in [0, 1], relative to the box.
        box: (4,) float32, (x1, y1, x2, y2) in pixels of the picture, finite and not empty.
        picture_hw: height and width of the picture.

    Returns:
        The window and its pixels; a box outside the picture has a window without pixels.
    """
    height, width = picture_hw
    x1, y1, x2, y2 = (float(value) for value in box)
    left, right = max(math.floor(x1) - 1, 0), min(math.ceil(x2) + 1, width)
    top, bottom = max(math.floor(y1) - 1, 0), min(math.ceil(y2) + 1, height)
    if left >= right or top >= bottom:
        return 0, 0, np.zeros((0, 0), np.bool_)
    side = len(probabilities)
    padded = np.zeros((side + 2, side + 2), np.float32)  # a border of zeros: what lies outside
    padded[1:-1, 1:-1] = probabilities
    columns = _taps(left, right, box[0], box[2], side)
    rows = _taps(top, bottom, box[1], box[3], side)
    covered = np.empty((bottom - top, right - left), np.bool_)
    with np.errstate(invalid="ignore"):  # a box too small for float32 steps has NaN weights
        first, second, weight = columns
        wide = padded[:, first] * (np.float32(1) - weight) + padded[:, second] * weight
        step = max(1, _STRIP_PIXELS // (right - left))
        for start in range(0, bottom - top, step):
            strip = slice(start, start + step)
            upper, lower, down = (part[strip] for part in rows)
            sampled = wide[upper]
            sampled *= (np.float32(1) - down)[:, None]
            below = wide[lower]
            below *= down[:, None]
            sampled += below
            covered[strip] = sampled >= MASK_THRESHOLD
            sampled -= np.float32(MASK_THRESHOLD)
            y, x = (np.abs(sampled, out=sampled) < _TOO_NEAR).nonzero()
            if len(y):
                exact = _as_reference(padded, (upper[y], lower[y], down[y]), _at(columns, x))
                covered[strip][y, x] = exact >= MASK_THRESHOLD
    return top, left, covered


def _at(taps: Taps, where: Int64) -> Taps:
    first, second, weight = taps
    return first[where], second[where], weight[where]


def _taps(start: int, stop: int, low: np.float32, high: np.float32, side: int) -> Taps:
    """Find, along one axis, the cells of the padded mask on either side of each pixel.

    Pixel centres relative to the box, then PyTorch's steps to cells of the mask: from [0, 1] to
    [-1, 1], plus one, times half the side and minus one half in a single rounding.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        centre = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
        relative = np.float32(2) * ((centre - low) / (high - low)) - np.float32(1)
        from_edge = (relative + np.float32(1)).astype(np.float64)
        cell = (from_edge * (side / 2) - 0.5).astype(np.float32)
        first = np.floor(cell)
        weight = cell - first
    inside = np.nan_to_num(first, nan=-1.0).astype(np.float64)
    return (
        np.clip(inside, -1, side).astype(np.int64) + 1,
        np.clip(inside + 1, -1, side).astype(np.int64) + 1,
        weight,
    )


def _as_reference(padded: Float32, rows: Taps, columns: Taps) -> Float32:
    """Sample at (P,) points as grid_sample does: four products, each fused with the sum."""
    upper, lower, down = rows
    left, right, along = columns
    up, back = np.float32(1) - down, np.float32(1) - along
    total = padded[upper, left] * (up * back)
    for values, weights in (
        (padded[upper, right], up * along),
        (padded[lower, left], down * back),
        (padded[lower, right], down * along),
    ):
        # a product of two float32 is exact in float64, so only the sum is rounded
        total = (values.astype(np.float64) * weights + total).astype(np.float32)
    return total


class PackedPatches(Sequence[Patch]):
    """A sequence of patches, kept with eight pixels a byte and unpacked at each access.

    A hundred instances as large as a picture of 24 megapixels take 0.3 GB instead of 2.3.

    Args:
        patches: packed one by one, so that they need not all be in memory.
    """

    def __init__(self, patches: Iterable[Patch]) -> None:
        self._packed = [
            (top, left, covered.shape, np.packbits(covered)) for top, left, covered in patches
        ]

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> Patch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Patch]: ...
    def __getitem__(self, index: int | slice) -> Patch | list[Patch]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        top, left, shape, bits = self._packed[index]
        count = int(np.prod(shape))
        return top, left, np.unpackbits(bits, count=count).view(np.bool_).reshape(shape)


class RLE(TypedDict):
    """A mask as COCO's tools read it.

    Keys:
        size: height and width of the picture.
        counts: lengths of runs of 0 and 1 in turn, column by column, in COCO's ASCII form.
    """

    size: list[int]
    counts: str


def encode(patch: Patch, picture_hw: tuple[int, int]) -> RLE:
    """Encode the whole picture's mask, from its patch alone.

    Args:
        patch: the window and its pixels, inside the picture.
        picture_hw: height and width of the picture.
    """
    return {"size": list(picture_hw), "counts": _ascii(_counts(patch, picture_hw)).decode()}


def _counts(patch: Patch, picture_hw: tuple[int, int]) -> Int64:
    """Compute the run lengths: zeros first (perhaps 0 of them), then ones and zeros in turn."""
    top, left, covered = patch
    height, width = picture_hw
    rows, columns = covered.shape
    # a column's last run may go on in the next column only where the patch is as high as the
    # picture; elsewhere a row of zeros below keeps them apart
    apart = 0 if rows == height else 1
    flat = np.zeros(columns * (rows + apart) + 2, np.bool_)
    flat[1:-1].reshape(columns, rows + apart)[:, :rows] = covered.T
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(changes, rows + apart) if len(changes) else (changes, changes)
    places = (left + column) * height + top + row
    total = height * width
    end = [total] if not len(places) or places[-1] < total else []
    bounds: Int64 = np.concatenate([[0], places, end]).astype(np.int64)
    return bounds[1:] - bounds[:-1]


def _ascii(counts: Int64) -> bytes:
    """Write counts as letters of five bits each, the lowest bits first.

    From the fourth count on, the count two before it is subtracted. A sixth bit says that more of
    the same number follows, and 48 is added to make a printable letter.
    """
    values = counts.copy()
    values[3:] -= counts[1:-2]
    groups, kept = [], []
    more = np.ones(len(values), np.bool_)
    while more.any():
        group = values & 31
        values = values >> 5
        kept.append(more)
        more = more & np.where(group & 16, values != -1, values != 0)
        groups.append(group + 32 * more + 48)
    letters: npt.NDArray[np.uint8] = np.stack(groups, axis=1)[np.stack(kept, axis=1)]
    return letters.astype(np.uint8).tobytes()
