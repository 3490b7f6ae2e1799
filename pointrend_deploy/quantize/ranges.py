"""Histograms of a graph's values, and the JSON file that stores them.

Calibration counts |x| of every value in a histogram (:class:`Tally`) and writes the histograms to a
file (:class:`Ranges`). scales.py computes a range from a histogram by any method. The file has no
date in it: the same pictures through the same graphs on the same processor give the same bytes.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import DeployError

Array = npt.NDArray[Any]
Method = Literal["entropy", "percentile", "mse", "max"]

SCHEMA: Final = 1
"""Version of the file's format."""
BINS: Final = 2048
SMALLEST_LIMIT: Final = 2.0**-100
"""Smallest upper limit of a histogram: far below any scale, and BINS / limit is still a float32."""
LARGEST_LIMIT: Final = 2.0**128
"""Largest upper limit of a histogram: above every float32."""
_PIECE: Final = 1 << 18
"""Number of values that are binned at once, so that scratch memory stays in a core's cache."""
_MOST: Final = 2**63 - 1
"""Largest sum of counts."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Histogram(_Part, frozen=True):
    """Counts of |x| in 2,048 bins of equal width.

    Attributes:
        limit: upper limit of the last bin, a power of two; the first bin begins at 0.
        counts: number of values in each of the 2,048 bins.
    """

    limit: float
    counts: tuple[int, ...]


class TensorRange(_Part, frozen=True):
    """What calibration observed of one value of a graph.

    Attributes:
        amax: largest absolute value, from 0 to the histogram's limit.
        histogram: histogram of the absolute values.
    """

    amax: float
    histogram: Histogram


class CalibrationPicture(_Part, frozen=True, omit_defaults=True):
    """A picture that went through the graphs.

    Attributes:
        name: its name in the folder or list.
        sha256: SHA-256 of its file.
        blank: whether it is of one plain colour; see
            :func:`pointrend_deploy.pictures.lists.is_blank`.
    """

    name: str
    sha256: str
    blank: bool = False


class SkippedPicture(_Part, frozen=True, omit_defaults=True):
    """A picture that did not go through the graphs.

    Attributes:
        name: its name in the folder or list.
        reason: why not, for the user.
        sha256: SHA-256 of its file; empty if the file cannot be read.
        duplicate: whether an earlier picture has the same pixels; otherwise it cannot be decoded.
    """

    name: str
    reason: str
    sha256: str = ""
    duplicate: bool = False


class Ranges(_Part, frozen=True, kw_only=True):
    """Contents of a file of ranges.

    Attributes:
        schema: version of the format.
        recipe: name of the bundle's recipe.
        graphs: SHA-256 of each FP32 graph, by file name.
        method: how a range is computed from a histogram, unless `quantize` is given another method.
        percentile: percent of the values inside the range for method percentile; None for others.
        pictures: pictures that were observed, in the order of the list.
        skipped: pictures that were not.
        tensors: by graph file and value, what was observed; values never computed are absent.
    """

    schema: int = SCHEMA
    recipe: str
    graphs: dict[str, str]
    method: Method
    percentile: float | None = None
    pictures: tuple[CalibrationPicture, ...]
    skipped: tuple[SkippedPicture, ...] = ()
    tensors: dict[str, dict[str, TensorRange]]


def encode(ranges: Ranges) -> bytes:
    """Return the bytes of the file: one line per value, the same for the same ranges."""
    table = msgspec.to_builtins(ranges)
    tensors = table.pop("tensors")
    head = msgspec.json.format(msgspec.json.encode(table), indent=1).removesuffix(b"\n}")
    lines = [head, b',\n "tensors": {']
    for number, (file, values) in enumerate(tensors.items()):
        lines += [b",\n  " if number else b"\n  ", msgspec.json.encode(file), b": {"]
        for place, (name, value) in enumerate(values.items()):
            lines += [b",\n" if place else b"\n", msgspec.json.encode(name), b": "]
            lines.append(msgspec.json.encode(value))
        lines.append(b"\n  }")
    lines.append(b"\n }\n}\n")
    return b"".join(lines)


def decode(raw: bytes, where: str, hint: str = "calibrate the bundle again") -> Ranges:
    """Read and check a file of ranges.

    Args:
        raw: bytes of the file.
        where: name of the file in errors.
        hint: of the errors.

    Raises:
        DeployError: it is not a file of ranges, has another schema, or has impossible contents.
    """
    try:
        ranges = msgspec.json.decode(raw, type=Ranges)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeployError(f"{where} is not a file of ranges: {error}", hint) from error
    if ranges.schema != SCHEMA:
        raise DeployError(
            f"{where} has schema {ranges.schema}; this version reads schema {SCHEMA}", hint
        )
    if ranges.percentile is not None and not 0 < ranges.percentile <= 100:
        raise DeployError(
            f"{where}: the percentile {ranges.percentile:g} is not above 0 and at most 100", hint
        )
    for file, values in ranges.tensors.items():
        if file not in ranges.graphs:
            raise DeployError(f"{where}: ranges of {file}, which it does not list", hint)
        for name, value in values.items():
            if problem := problem_of(value):
                raise DeployError(f"{where}: {file}, {name}: {problem}", hint)
    return ranges


def problem_of(value: TensorRange) -> str:
    """Return what is impossible about an observed value, or an empty text if nothing is."""
    limit, counts = value.histogram.limit, value.histogram.counts
    if len(counts) != BINS:
        return f"{len(counts)} bins where {BINS} are expected"
    possible = SMALLEST_LIMIT <= limit <= LARGEST_LIMIT
    if not possible or math.frexp(limit)[0] != 0.5:
        return f"the limit {limit} is not a power of two that float32 values need"
    if not 0 <= value.amax <= limit:
        return f"the maximum {value.amax} is not between 0 and the limit {limit}"
    if min(counts) < 0 or not any(counts):
        return "counts are negative or all zero"
    if sum(counts) > _MOST:
        return "counts are more than could be counted"
    last = max(place for place, count in enumerate(counts) if count)
    if last != min(int(value.amax / (limit / BINS)), BINS - 1):
        return f"the maximum {value.amax} is not in the last bin that has counts"
    return ""


class Tally:
    """Largest absolute value and histogram of |x| of arrays, in fixed memory.

    The limit of the histogram is a power of two. When a larger value comes, the limit doubles and
    neighbouring bins are merged in pairs. The counts are therefore those that the final limit would
    have given from the start, in whatever order the values come.

    Args:
        amax: largest absolute value so far.
        limit: power of two above it; ignored without counts.
        counts: (2048,) counts of |x| in [0, limit); None to start empty.
    """

    def __init__(self, amax: float = 0.0, limit: float = 0.0, counts: Array | None = None) -> None:
        self.amax = amax
        self.limit = limit if counts is not None else SMALLEST_LIMIT
        self.counts = np.zeros(BINS, np.int64) if counts is None else counts.astype(np.int64)

    def add(self, values: Array) -> None:
        """Count every element of a float32 array of any shape.

        Raises:
            DeployError: an element is infinite or not a number; the array is not counted.
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
        """Merge bins until the histogram's limit is at least ``limit``."""
        if limit <= self.limit:
            return
        self.counts = merged(self.counts, round(math.log2(limit / self.limit)))
        self.limit = limit


def limit_of(largest: float) -> float:
    """Return the smallest power of two above a number >= 0, but at least SMALLEST_LIMIT."""
    if not largest:
        return SMALLEST_LIMIT
    return max(math.ldexp(1.0, math.frexp(largest)[1]), SMALLEST_LIMIT)


def merged(counts: Array, doublings: int) -> Array:
    """Return the counts (2048,) of a histogram after its limit is doubled ``doublings`` times."""
    factor = min(1 << min(doublings, 11), BINS)
    out = np.zeros_like(counts)
    out[: BINS // factor] = counts.reshape(-1, factor).sum(axis=1)
    return out
