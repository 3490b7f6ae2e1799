"""Reads the goldens: arrays out of ``NAME.npz.xz``, pictures out of ``inputs/NAME.webp``.

What follows exactly from other arrays is not stored. The golden of the standard mask head has the
features, proposals and boxes of the PointRend golden with the same trunk, and the final mask logits
follow from detectron2's own point logits. They are made again here in numpy, without any code under
test, and every array made again is checked against the SHA-256 of what detectron2 answered.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Arrays = dict[str, NDArray[Any]]

HERE: Final = Path(__file__).parent
SAME_TRUNK: Final = {"maskrcnn_inst_288x416": "inst_288x416"}
"""Golden -> golden that holds the arrays it shares; ``made_again.json`` lists them."""


def read_golden(case: str) -> Arrays:
    """All arrays of a golden.

    Raises:
        ValueError: an array made again is not what detectron2 answered.
    """
    arrays = stored(case)
    expected: dict[str, str] = json.loads((HERE / "made_again.json").read_text()).get(case, {})
    made: Arrays = {}
    if case in SAME_TRUNK:
        trunk = stored(SAME_TRUNK[case])
        made = {name: trunk[name] for name in expected}
    elif expected:
        final = final_mask_logits(arrays)
        made = {
            "final_sel_n": final[:3].copy(),
            "final_sel_s4": np.ascontiguousarray(final[:, ::4, ::4]),
        }
    wrong = [name for name in expected if digest(made[name]) != expected[name]]
    if wrong or set(made) != set(expected):
        raise ValueError(f"{case}: {wrong} is not what detectron2 answered")
    return arrays | made


def read_input(picture: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A golden's picture, (H, W, 3) uint8 BGR, and the height and width of its output."""
    with Image.open(HERE / "inputs" / f"{picture}.webp") as image:
        bgr = np.asarray(image.convert("RGB"))[..., ::-1]
    height, width = json.loads((HERE / "inputs" / "output_sizes.json").read_text())[picture]
    return np.ascontiguousarray(bgr), (height, width)


def stored(case: str) -> Arrays:
    """The arrays that the file of a golden holds."""
    with lzma.open(HERE / f"{case}.npz.xz") as file, np.load(file) as arrays:
        return dict(arrays)


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of dtype, shape and bytes."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def final_mask_logits(golden: Arrays) -> NDArray[np.float32]:
    """Logits (R, 224, 224) of each detection's class from the points of every step.

    The grid is doubled three times; each time the points' logits take their places. Torch sums
    the bilinear terms of the first doubling in another order than those of the other two.
    """
    logits: NDArray[np.float32] = golden["init_sel"]
    for step, double in ((1, _doubled_by_corners), (2, _doubled_by_rows), (3, _doubled_by_rows)):
        logits = double(logits)
        flat = logits.reshape(len(logits), -1)
        places = golden[f"step{step}_idx_sorted"].astype(np.int64)
        np.put_along_axis(flat, places, golden[f"step{step}_point_logits_sel"], axis=1)
    return logits


def _lines(side: int) -> tuple[Any, Any, Any, Any]:
    """For each line of a doubled grid: its two source lines and their weights."""
    at = np.maximum((np.arange(2 * side) + 0.5) / 2 - 0.5, 0.0)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, side - 1), 1.0 - (at - low), at - low


def _sum(first: NDArray[Any], *others: NDArray[Any]) -> NDArray[np.float32]:
    """float64 terms summed in float32, each addition rounded once as a fused multiply-add is."""
    total = first.astype(np.float32)
    for term in others:
        total = (total.astype(np.float64) + term).astype(np.float32)
    return total


def _doubled_by_corners(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """(R, H, W) doubled; the four neighbours are summed at once."""
    source = grid.astype(np.float64)
    top, bottom, of_top, of_bottom = _lines(grid.shape[1])
    left, right, of_left, of_right = _lines(grid.shape[2])
    above, below = source[:, top], source[:, bottom]
    return _sum(
        (of_bottom[:, None] * of_left) * below[:, :, left],
        (of_bottom[:, None] * of_right) * below[:, :, right],
        (of_top[:, None] * of_right) * above[:, :, right],
        (of_top[:, None] * of_left) * above[:, :, left],
    )


def _doubled_by_rows(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """(R, H, W) doubled; along each row first, then across the rows."""
    source = grid.astype(np.float64)
    left, right, of_left, of_right = _lines(grid.shape[2])
    wide = _sum(of_right * source[:, :, right], of_left * source[:, :, left]).astype(np.float64)
    top, bottom, of_top, of_bottom = _lines(grid.shape[1])
    return _sum(of_bottom[:, None] * wide[:, bottom], of_top[:, None] * wide[:, top])
