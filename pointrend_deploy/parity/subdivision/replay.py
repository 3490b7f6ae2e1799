"""The subdivision, replayed in numpy from a run's own stages.

A run hands over its coarse logits, the points it chose and their logits. That is all its grids are
made of, so the uncertainty it chose by, and the area one stray point can reach, follow from them.

MERGED: What the coarse head alone would answer: its logits, brought to the network grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def num_steps(stages: Mapping[str, Array]) -> int:
    """Number of subdivision steps whose indices and logits are both among the stages."""
    count = 0
    while f"step{count}.indices" in stages and f"step{count}.point_logits" in stages:
        count += 1
    return count


def uncertainty_maps(stages: Mapping[str, Array]) -> Iterator[Array]:
    """The uncertainty each step chose its points by, in order.

    Args:
        stages: ``coarse`` (N,C,h,w), ``step<t>.indices`` (N,K), ``step<t>.point_logits`` (N,C,K).

    Yields:
        (N, 2h, 2w) float32, then (N, 4h, 4w), ...: second best minus best logit, <= 0.
    """
    grid = np.asarray(stages["coarse"], dtype=np.float32)
    steps = num_steps(stages)
    for step in range(steps):
        grid = double(grid)
        yield uncertainty(grid)
        if step + 1 < steps:
            n, c, h, w = grid.shape
            where = stages[f"step{step}.indices"][:, None, :]
            np.put_along_axis(
                grid.reshape(n, c, h * w), where, stages[f"step{step}.point_logits"], axis=2
            )


def double(grid: Array) -> Array:
    """Bilinear upsampling by 2, cell centres aligned, edges clamped: (N,C,H,W) -> (N,C,2H,2W)."""
    return _double_axis(_double_axis(grid, 2), 3)


def uncertainty(logits: Array) -> Array:
    """Second best minus best logit over the classes: (N,C,H,W) -> (N,H,W), never above 0."""
    best = np.maximum(logits[:, 0], logits[:, 1])
    second = np.minimum(logits[:, 0], logits[:, 1])
    for plane in range(2, logits.shape[1]):
        value = logits[:, plane]
        np.maximum(second, np.minimum(best, value), out=second)
        np.maximum(best, value, out=best)
    return np.asarray(second - best)


def reach(strays: Sequence[Array], grids_hw: Sequence[tuple[int, int]]) -> Array:
    """Pixels of the last grid that a stray point, or interpolation from it, can have changed.

    Doubling spreads a cell (y, x) over rows 2y-1 .. 2y+2 and the same columns.

    Args:
        strays: for each step a bool map (N, H_t, W_t) of points only one side chose.
        grids_hw: the steps' grids; each is twice the one before.

    Returns:
        (N, H_last, W_last) bool.
    """
    touched = strays[0]
    for step in range(1, len(grids_hw)):
        wide = touched.repeat(2, axis=1).repeat(2, axis=2)
        spread = wide.copy()
        spread[:, 1:] |= wide[:, :-1]
        spread[:, :-1] |= wide[:, 1:]
        wide = spread.copy()
        spread[:, :, 1:] |= wide[:, :, :-1]
        spread[:, :, :-1] |= wide[:, :, 1:]
        touched = spread | strays[step]
    return touched


def reach_width(doublings: int) -> int:
    """Rows (or columns) that one point covers after so many doublings: 1, 4, 10, 22, ..."""
    width = 1
    for _ in range(doublings):
        width = 2 * width + 2
    return width


def _double_axis(grid: Array, axis: int) -> Array:
    grid = np.moveaxis(grid, axis, -1)
    before = np.concatenate((grid[..., :1], grid[..., :-1]), axis=-1)
    after = np.concatenate((grid[..., 1:], grid[..., -1:]), axis=-1)
    out = np.empty((*grid.shape[:-1], 2 * grid.shape[-1]), dtype=grid.dtype)
    out[..., 0::2] = 0.25 * before + 0.75 * grid
    out[..., 1::2] = 0.75 * grid + 0.25 * after
    return np.ascontiguousarray(np.moveaxis(out, -1, axis))


def bilinear(maps: Array, out_hw: tuple[int, int]) -> Array:
    """(C, h, w) -> (C, H, W) float32: bilinear, cell centres aligned, edges clamped."""
    return _along(_along(np.asarray(maps, np.float32), 1, out_hw[0]), 2, out_hw[1])


def _along(maps: Array, axis: int, size: int) -> Array:
    length = maps.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    low = np.minimum(at.astype(np.int64), max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    weight = (at - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
    below = maps.take(low, axis=axis)
    return np.asarray(below + weight * (maps.take(high, axis=axis) - below))
