"""COCO's run-length encoding of a mask, from its patch alone.

Written here rather than taken from pycocotools, because a device that runs a bundle then needs no
package beside numpy and Pillow for its results, and because pycocotools encodes whole pictures: a
patch needs no mask of the picture's size. Source of the form: cocoapi, common/maskApi.c (rleEncode
and rleToString); the tests compare the two byte by byte.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pointrend_deploy.run.paste import Patch

Int64 = npt.NDArray[np.int64]


class RLE(TypedDict):
    """A mask as COCO's tools read it.

    Keys:
        size: height and width of the picture.
        counts: lengths of runs of 0 and 1 by turns, column by column, in COCO's ASCII form.
    """

    size: list[int]
    counts: str


def encode(patch: Patch, picture_hw: tuple[int, int]) -> RLE:
    """The RLE of the picture's mask that a patch stands for.

    Args:
        patch: place and pixels; it lies in the picture.
        picture_hw: height and width of the picture.
    """
    return {"size": list(picture_hw), "counts": _ascii(_counts(patch, picture_hw)).decode()}


def _counts(patch: Patch, picture_hw: tuple[int, int]) -> Int64:
    """Run lengths: zeros first (perhaps none), then ones and zeros by turns."""
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
    """Counts as letters of five bits each, the lowest first.

    From the fourth on, a count is given less the one two before it; a sixth bit says that more of
    the same number follows, and 48 is added to make it a printable letter.
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
