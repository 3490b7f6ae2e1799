"""Symmetric INT8 values and their scales: q = round(x / scale), zero point 0.

A scale is stored in the type of the values it stands for, FP32 or FP16. Rounding it to FP16 could
put the largest value at 127.06, or a channel of tiny weights at a scale of 0; so it is rounded up,
and never below the smallest number of its type above 0. At that floor, 2**-24, INT8 has the very
spacing that FP16 itself has there: nothing is lost that the FP16 graph would have kept.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

LEVELS: Final = 127
"""Steps on either side of 0. Weights leave -128 out; of activations it catches what is below."""

UNSEEN: Final = 1.0
"""Largest absolute value assumed of what was 0 throughout: nothing is known of its scale."""

_FLOORS: Final = {np.dtype(np.float16): 2.0**-24, np.dtype(np.float32): 2.0**-100}
"""Smallest scale: of FP32 far above where the product of two scales would vanish."""


def scales_of(amax: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
    """Scales at which the values up to ``amax`` in size are not clipped.

    Args:
        amax: largest absolute values, finite, any shape.
        dtype: of the values and so of the scales: float16 or float32.

    Returns:
        amax / 127 rounded up to ``dtype``; for an amax of 0 that of :data:`UNSEEN`.
    """
    kind = np.dtype(dtype)
    exact = np.asarray(amax, np.float64)
    exact = np.where(exact > 0, exact, UNSEEN) / LEVELS
    exact = np.clip(exact, _FLOORS[kind], float(np.finfo(kind).max))
    near = exact.astype(kind)
    up = np.nextafter(near, np.asarray(np.inf, kind))
    return np.where(near.astype(np.float64) < exact, up, near).astype(kind)


def quantized(
    values: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]
) -> npt.NDArray[np.int8]:
    """INT8 values, ties to even as QuantizeLinear rounds them.

    Args:
        values: any shape.
        scale: of a shape that broadcasts with ``values``.
    """
    steps = np.rint(values.astype(np.float64) / scale.astype(np.float64))
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8)


def quantized_weight(
    weight: npt.NDArray[np.floating], axis: int, dtype: npt.DTypeLike
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.floating]]:
    """A weight in INT8, with a scale for each output channel.

    Args:
        weight: any shape of two or more dimensions.
        axis: that counts output channels.
        dtype: of the scales.

    Returns:
        (values of the weight's shape, scales of shape (channels,)). A channel of zeros stays zeros.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = scales_of(np.abs(weight.astype(np.float64)).max(axis=others), dtype)
    return quantized(weight, np.expand_dims(scale, others)), scale
