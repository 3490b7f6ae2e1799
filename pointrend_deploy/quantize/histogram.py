"""How often values of each size were seen: a histogram whose range grows, in fixed memory.

The range is a power of two. It doubles when a larger value comes, and neighbouring bins are merged
in pairs, so the counts are those that the final range would have given from the start: they do not
depend on the order in which values come.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import DeployError

BINS: Final = 2048
SMALLEST_LIMIT: Final = 2.0**-100
"""Of a histogram: far below what any scale resolves, and BINS / limit is still a float32."""
LARGEST_LIMIT: Final = 2.0**128
"""Above every float32."""
_PIECE: Final = 1 << 18
"""Values binned at once: their scratch memory stays in a core's cache."""

Array = npt.NDArray[Any]


class Tally:
    """Largest absolute value and histogram of |x| of all arrays added.

    Args:
        amax: largest absolute value so far.
        limit: power of two above it; ignored where there are no counts.
        counts: (2048,) of |x| in [0, limit).
    """

    def __init__(self, amax: float = 0.0, limit: float = 0.0, counts: Array | None = None) -> None:
        self.amax = amax
        self.limit = limit if counts is not None else SMALLEST_LIMIT
        self.counts = np.zeros(BINS, np.int64) if counts is None else counts.astype(np.int64)

    def add(self, values: Array) -> None:
        """Count every value of a float32 array of any shape.

        Raises:
            DeployError: a value is infinite or not a number; nothing of the array is counted.
        """
        if not values.size:
            return
        largest = max(float(values.max()), -float(values.min()))
        if not math.isfinite(largest):
            raise DeployError("a value is infinite or not a number")
        self._reach(limit_of(largest))
        self.amax = max(self.amax, largest)
        flat = values.reshape(-1)
        scale = np.float32(BINS / self.limit)
        size = min(_PIECE, flat.size)
        scaled, bins = np.empty(size, np.float32), np.empty(size, np.intp)
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE]
            part, index = scaled[: piece.size], bins[: piece.size]
            np.abs(piece, out=part)
            part *= scale  # exact: a power of two
            np.copyto(index, part, casting="unsafe")  # rounds towards zero
            self.counts += np.bincount(index, minlength=BINS)

    def _reach(self, limit: float) -> None:
        """Merge bins until the range is at least ``limit``."""
        if limit <= self.limit:
            return
        self.counts = merged(self.counts, round(math.log2(limit / self.limit)))
        self.limit = limit


def limit_of(largest: float) -> float:
    """The smallest power of two above a number >= 0, at least SMALLEST_LIMIT."""
    if not largest:
        return SMALLEST_LIMIT
    return max(math.ldexp(1.0, math.frexp(largest)[1]), SMALLEST_LIMIT)


def merged(counts: Array, doublings: int) -> Array:
    """Counts over a range that many times doubled: (2048,) to (2048,)."""
    factor = min(1 << min(doublings, 11), BINS)
    out = np.zeros_like(counts)
    out[: BINS // factor] = counts.reshape(-1, factor).sum(axis=1)
    return out
