"""The state of an unfinished calibration, saved beside the ranges so that it can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.ranges import (
    CalibrationPicture,
    Histogram,
    SkippedPicture,
    Tally,
    TensorRange,
    problem_of,
)

SUFFIX: Final = ".partial"


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of a calibration. A saved state is resumed only by an equal job.

    Attributes:
        versions: versions of this package and of the libraries that compute, by name.
        graphs: SHA-256 of each FP32 graph, by file name.
        listed: name and SHA-256 of every picture, in order.
    """

    versions: dict[str, str]
    graphs: dict[str, str]
    listed: tuple[tuple[str, str], ...]

    def other(self, than: Job) -> str:
        """Return how this job differs from another, or an empty text if they are equal."""
        if self.graphs != than.graphs:
            return "another model"
        if self.listed != than.listed:
            return "other pictures"
        return "another version of this program or its libraries" if self != than else ""


class Partial(msgspec.Struct, forbid_unknown_fields=True):
    """The state after some of the pictures.

    Attributes:
        job: the calibration it belongs to.
        pictures: pictures observed so far.
        skipped: pictures left out so far.
        shown: by SHA-256 of pixels, the name of the first picture with these pixels.
        tensors: by graph file and value, what was observed.
    """

    job: Job
    pictures: list[CalibrationPicture] = []
    skipped: list[SkippedPicture] = []
    shown: dict[str, str] = {}
    tensors: dict[str, dict[str, TensorRange]] = {}

    @property
    def done(self) -> int:
        """Number of pictures of the list that were observed or left out."""
        return len(self.pictures) + len(self.skipped)

    def tallies(self) -> dict[str, dict[str, Tally]]:
        """Return the histograms, by graph file and value, ready to count more values."""
        return {
            file: {
                name: Tally(seen.amax, seen.histogram.limit, np.array(seen.histogram.counts))
                for name, seen in values.items()
            }
            for file, values in self.tensors.items()
        }


def ranges_of(tallies: Mapping[str, Mapping[str, Tally]]) -> dict[str, dict[str, TensorRange]]:
    """Convert histograms, by graph file and value, to the form that is written to disk."""
    return {
        file: {
            name: TensorRange(seen.amax, Histogram(seen.limit, tuple(seen.counts.tolist())))
            for name, seen in values.items()
        }
        for file, values in tallies.items()
    }


def partial_path(ranges: Path) -> Path:
    """Return the path of the saved state, beside the file of ranges."""
    return ranges.with_name(ranges.name + SUFFIX)


def save(path: Path, state: Partial) -> None:
    """Write a state atomically. Raises DeployError if the file cannot be written."""
    atomic.write_bytes(path, msgspec.json.encode(state))


def load(path: Path, job: Job) -> tuple[Partial | None, str]:
    """Load the state of an interrupted calibration.

    Args:
        path: path of the state.
        job: the calibration that wants to resume.

    Returns:
        The state, or None if there is none for this job; and, if there is a state that cannot be
        used, the reason.

    Raises:
        DeployError: the file exists and the system cannot read it.
    """
    try:
        state = msgspec.json.decode(path.read_bytes(), type=Partial)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        raise DeployError(f"cannot read {path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, "it cannot be read"
    if other := job.other(state.job):
        return None, f"it is of {other}"
    if any(problem_of(seen) for values in state.tensors.values() for seen in values.values()):
        return None, "it has impossible contents"
    return state, ""


def forget(path: Path) -> None:
    """Remove a saved state, and temporary files that killed processes left beside it."""
    atomic.remove(path)
    clear_left_over(path)


def clear_left_over(path: Path) -> None:
    """Remove temporary files that killed processes left while writing a state or its ranges."""
    with suppress(OSError):  # housekeeping; the folder may not be there yet
        atomic.clear_left_over(path)
        atomic.clear_left_over(path.with_name(path.name.removesuffix(SUFFIX)))
