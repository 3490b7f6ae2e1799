"""Compute ranges from histograms: the absolute value at which symmetric INT8 saturates.

Every method gives a number above 0 and at most the largest value observed. The values of a bin are
taken as spread evenly over it. Bin 0 is an exception: after a ReLU it is mostly exact zeros, which
any scale represents exactly, so ``mse`` and ``entropy`` count it as no fuller than bin 1.

- ``max``: the largest value observed.
- ``percentile``: the upper edge of the bin in which that share of all values is reached.
- ``mse``: of 2,048 clips, the one with the least expected squared error: rounding to the nearest of
  127 levels below it and cutting off what lies above.
- ``entropy``: TensorRT's convention (S. Migacz, "8-bit Inference with TensorRT", GTC 2017). For
  every i from 128 to the bin of the largest value: P is the first i bins with all that lies beyond
  added to the last; Q is the same bins without that, gathered into 128 levels and spread again over
  those bins of each level that are not empty. The i with the least KL(P || Q) is taken, the last of
  equals, and its upper edge is the range. Where P is not 0 and Q is, the divergence is infinite.
  Bin 0 is set to bin 1, as in NVIDIA's pytorch-quantization: otherwise a spike of zeros outweighs
  the rest and the smallest candidate is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import UsageError
from pointrend_deploy.quantize.qdq import LEVELS
from pointrend_deploy.quantize.ranges import BINS, Method, TensorRange

ENTROPY_LEVELS: Final = 128
PERCENTILE: Final = 99.99
"""Percent of the values inside the range, unless another is given."""
DEAD: Final = 2.0**-10
"""Range of a value that was always zero. Any range would represent zeros; the scale of this one is
close to a normal number in FP16, and it still resolves small activations."""

Array = npt.NDArray[Any]


def all_amax(
    tensors: Mapping[str, TensorRange], method: Method, percentile: float = PERCENTILE
) -> dict[str, float]:
    """Compute the largest absolute value to represent for each value of a graph.

    Args:
        tensors: what calibration observed, by name of the value.
        method: one of the methods above.
        percentile: for method percentile, percent of the values inside the range, in (0, 100].

    Returns:
        The range by name: above 0, and at most the largest value observed, or DEAD if all were 0.

    Raises:
        UsageError: the percentile is out of range.
    """
    check_percentile(percentile)
    names = [name for name, seen in tensors.items() if seen.amax > 0]
    if names and method != "max":
        counts = np.array([tensors[name].histogram.counts for name in names], np.float64)
        width = np.array([tensors[name].histogram.limit for name in names]) / BINS
        most = np.array([tensors[name].amax for name in names])
        last = np.minimum((most / width).astype(np.int64), BINS - 1)
        if method == "percentile":
            bins = _percentile(counts, percentile)
        elif method == "mse":
            bins = _mse(_without_zeros(counts), last)
        else:
            bins = _entropy(_without_zeros(counts, fill=True), last)
        found = dict(zip(names, np.minimum((bins + 1) * width, most).tolist(), strict=True))
    else:
        found = {name: tensors[name].amax for name in names}
    return {name: found.get(name, DEAD) for name in tensors}


def check_percentile(percentile: float) -> None:
    """Raise UsageError unless the percentile is above 0 and at most 100."""
    if not 0 < percentile <= 100:
        raise UsageError(
            f"a percentile is above 0 and at most 100, not {percentile:g}",
            "99.99 keeps all but one value in ten thousand",
        )


def _without_zeros(counts: Array, fill: bool = False) -> Array:
    """Copy counts (T, 2048) with bin 0 lowered to bin 1, or, with ``fill``, set to bin 1."""
    out = counts.copy()
    out[:, 0] = counts[:, 1] if fill else np.minimum(counts[:, 0], counts[:, 1])
    return out


def _percentile(counts: Array, percentile: float) -> Array:
    """Return for each row of counts (T, 2048) the bin in which the percentile is reached."""
    reached = np.cumsum(counts, axis=1)
    wanted = reached[:, -1] * (percentile / 100)
    found: Array = (reached >= wanted[:, None] * (1 - 1e-15)).argmax(axis=1)
    return found


def _mse(counts: Array, last: Array) -> Array:
    """Return for each row of counts (T, 2048) the bin, up to ``last``, with the least error."""
    errors = counts @ _squared_errors().T
    errors[np.arange(BINS) > last[:, None]] = np.inf
    found: Array = errors.argmin(axis=1)
    return found


@cache
def _squared_errors() -> Array:
    """Mean squared error of a bin's values when clipping at a bin's upper edge: (clips, bins).

    Lengths are in widths of a bin. With r = x - s n, n = min(round(x / s), 127), the integral of
    r^2 from 0 to x is n s^3 / 12 + r^3 / 3: n whole cells of width s and the rest r, of any sign.
    """
    edges = np.arange(BINS + 1, dtype=np.float64)
    step = (np.arange(1, BINS + 1) / LEVELS)[:, None]
    level = np.minimum(np.floor(edges / step + 0.5), LEVELS)
    integral = level * step**3 / 12 + (edges - level * step) ** 3 / 3
    return np.diff(integral, axis=1)


def _entropy(counts: Array, last: Array) -> Array:
    """Return for each row of counts (T, 2048) the bin, up to ``last``, of the least divergence.

    Let N be the sum of all counts, C that of the first i bins and q the spread counts. Then
    KL = (1 / N) sum P log(P / q) + log(C / N), with the sum over the first i bins. Running sums
    give all of P but its last bin, the sum of each level, and its number of bins not empty.
    """
    total = counts.sum(axis=1)
    running = np.concatenate((np.zeros((len(counts), 1)), np.cumsum(counts, axis=1)), axis=1)
    filled = np.zeros_like(running)
    filled[:, 1:] = np.cumsum(counts > 0, axis=1)
    logs = np.zeros_like(running)
    logs[:, 1:] = np.cumsum(_x_log_x(counts), axis=1)
    best = np.full(len(counts), np.inf)
    found = last.copy()
    for size in range(ENTROPY_LEVELS, int(last.max()) + 2):
        edges = -(-np.arange(ENTROPY_LEVELS + 1) * size // ENTROPY_LEVELS)
        sums = np.diff(running[:, edges], axis=1)
        height = sums / np.maximum(np.diff(filled[:, edges], axis=1), 1)
        spread = (sums * _log(height)).sum(axis=1)
        beyond = total - running[:, size]
        tail = counts[:, size - 1]
        more = _x_log_x(tail + beyond) - _x_log_x(tail) - beyond * _log(height[:, -1])
        inside = running[:, size]
        with np.errstate(divide="ignore", invalid="ignore"):
            divergence = (logs[:, size] - spread + more) / total + np.log(inside / total)
        possible = (inside > 0) & ((tail > 0) | (beyond == 0)) & (size - 1 <= last)
        better = possible & (divergence <= best)
        best[better], found[better] = divergence[better], size - 1
    return found


def _log(x: Array) -> Array:
    """Compute log(x), or 0 where x is 0."""
    return np.log(np.where(x > 0, x, 1.0))


def _x_log_x(x: Array) -> Array:
    return x * _log(x)
