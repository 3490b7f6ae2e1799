"""What the coarse head alone would answer: its logits, brought to the network grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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
