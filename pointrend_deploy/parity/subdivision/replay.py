"""The subdivision replayed in numpy from a run's own stages.

A run hands over its coarse logits, the points it chose and their logits. Its grids are made of
nothing else, so three things follow from them: the uncertainty each step chose its points by, the
area that one stray point can have changed, and the answer of the coarse head alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def num_steps(stages: Mapping[str, Array], first: int = 0) -> int:
    """Count the subdivision steps, from ``first`` on, that have both indices and point logits."""
    step = first
    while f"step{step}.indices" in stages and f"step{step}.point_logits" in stages:
        step += 1
    return step - first


def uncertainty_maps(
    stages: Mapping[str, Array], grid: Array | None = None, first: int = 0
) -> Iterator[Array]:
    """Yield the uncertainty each step chose its points by, in order.

    Args:
        stages: ``step<t>.indices`` (N, K) and ``step<t>.point_logits`` (N, C, K), and ``coarse``
            (N, C, h, w) where no ``grid`` is given.
        grid: (N, C, h, w), the logits before the first step; ``coarse`` when None.
        first: number of the first step.

    Yields:
        (N, 2h, 2w) float32, then (N, 4h, 4w), ...: see :func:`uncertainty`.
    """
    grid = np.asarray(stages["coarse"] if grid is None else grid, dtype=np.float32)
    steps = num_steps(stages, first)
    for step in range(first, first + steps):
        grid = double(grid)
        yield uncertainty(grid)
        if step + 1 < first + steps:
            n, c, h, w = grid.shape
            where = stages[f"step{step}.indices"][:, None, :]
            np.put_along_axis(
                grid.reshape(n, c, h * w), where, stages[f"step{step}.point_logits"], axis=2
            )


def double(grid: Array) -> Array:
    """Upsample by 2, bilinear, cell centres aligned, edges clamped: (N,C,H,W) -> (N,C,2H,2W)."""
    return _double_axis(_double_axis(grid, 2), 3)


def _double_axis(grid: Array, axis: int) -> Array:
    grid = np.moveaxis(grid, axis, -1)
    before = np.concatenate((grid[..., :1], grid[..., :-1]), axis=-1)
    after = np.concatenate((grid[..., 1:], grid[..., -1:]), axis=-1)
    out = np.empty((*grid.shape[:-1], 2 * grid.shape[-1]), dtype=grid.dtype)
    out[..., 0::2] = 0.25 * before + 0.75 * grid
    out[..., 1::2] = 0.75 * grid + 0.25 * after
    return np.ascontiguousarray(np.moveaxis(out, -1, axis))


def uncertainty(logits: Array) -> Array:
    """Compute the uncertainty of logits: (N,C,H,W) -> (N,H,W), never above 0.

    Of several classes it is the second best minus the best logit, of one class (a mask) minus the
    absolute logit.
    """
    if logits.shape[1] == 1:
        return np.asarray(-np.abs(logits[:, 0]))
    best = np.maximum(logits[:, 0], logits[:, 1])
    second = np.minimum(logits[:, 0], logits[:, 1])
    for plane in range(2, logits.shape[1]):
        value = logits[:, plane]
        np.maximum(second, np.minimum(best, value), out=second)
        np.maximum(best, value, out=best)
    return np.asarray(second - best)


def reach(strays: Sequence[Array]) -> Array:
    """Mark the pixels of the last grid that stray points can have changed.

    A stray changes its own cell. Doubling a grid interpolates, which spreads a cell (y, x) over
    rows 2y-1 .. 2y+2 and the same columns of the next grid.

    Args:
        strays: for each step a bool map (N, H_t, W_t) of points only one side chose; each grid has
            twice the height and width of the one before.

    Returns:
        (N, H_last, W_last) bool.
    """
    touched = strays[0]
    for own in strays[1:]:
        wide = touched.repeat(2, axis=1).repeat(2, axis=2)
        spread = wide.copy()
        spread[:, 1:] |= wide[:, :-1]
        spread[:, :-1] |= wide[:, 1:]
        wide = spread.copy()
        spread[:, :, 1:] |= wide[:, :, :-1]
        spread[:, :, :-1] |= wide[:, :, 1:]
        touched = spread | own
    return touched


def reach_width(doublings: int) -> int:
    """Count the rows (or columns) one point covers after some doublings: 1, 4, 10, 22, ..."""
    width = 1
    for _ in range(doublings):
        width = 2 * width + 2
    return width


def bilinear(maps: Array, out_hw: tuple[int, int]) -> Array:
    """Resize the coarse head's logits to the network grid: (C, h, w) -> (C, H, W) float32.

    Interpolation is bilinear, with cell centres aligned and edges clamped.
    """
    return _along(_along(np.asarray(maps, np.float32), 1, out_hw[0]), 2, out_hw[1])


def _along(maps: Array, axis: int, size: int) -> Array:
    length = maps.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    low = np.minimum(at.astype(np.int64), max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    weight = (at - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
    below = maps.take(low, axis=axis)
    return np.asarray(below + weight * (maps.take(high, axis=axis) - below))
