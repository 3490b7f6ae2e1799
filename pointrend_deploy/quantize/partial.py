"""What a calibration has seen so far, on disk beside the ranges, so that it can go on."""

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
    """What a calibration is of; one that differs in anything cannot go on with another's.

    Attributes:
        versions: of what computes: package, ONNX Runtime and numpy.
        graphs: SHA-256 of each FP32 graph, by file name.
        listed: name and SHA-256 of every picture, in order.
    """

    versions: dict[str, str]
    graphs: dict[str, str]
    listed: tuple[tuple[str, str], ...]

    def other(self, than: Job) -> str:
        """In what this one differs; empty where it does not."""
        if self.graphs != than.graphs:
            return "another model"
        if self.listed != than.listed:
            return "other pictures"
        return "another version of this program or its libraries" if self != than else ""


class Partial(msgspec.Struct, forbid_unknown_fields=True):
    """The state after some of the pictures.

    Attributes:
        job: what it is of.
        pictures: observed so far.
        skipped: left out so far.
        shown: name of the picture that first showed some pixels, by their SHA-256.
        tensors: by graph file and value.
    """

    job: Job
    pictures: list[CalibrationPicture] = []
    skipped: list[SkippedPicture] = []
    shown: dict[str, str] = {}
    tensors: dict[str, dict[str, TensorRange]] = {}

    @property
    def done(self) -> int:
        """Pictures of the list that are dealt with."""
        return len(self.pictures) + len(self.skipped)

    def tallies(self) -> dict[str, dict[str, Tally]]:
        """The histograms, to be added to."""
        return {
            file: {
                name: Tally(seen.amax, seen.histogram.limit, np.array(seen.histogram.counts))
                for name, seen in values.items()
            }
            for file, values in self.tensors.items()
        }


def ranges_of(tallies: Mapping[str, Mapping[str, Tally]]) -> dict[str, dict[str, TensorRange]]:
    """Histograms as they are written."""
    return {
        file: {
            name: TensorRange(seen.amax, Histogram(seen.limit, tuple(seen.counts.tolist())))
            for name, seen in values.items()
        }
        for file, values in tallies.items()
    }


def partial_path(ranges: Path) -> Path:
    """Where the state of a file of ranges is kept until that is written."""
    return ranges.with_name(ranges.name + SUFFIX)


def save(path: Path, state: Partial) -> None:
    """Write a state whole or not at all. Raises DeployError where the disk refuses."""
    atomic.write_bytes(path, msgspec.json.encode(state))


def load(path: Path, job: Job) -> tuple[Partial | None, str]:
    """The state of an interrupted calibration.

    Returns:
        The state, or None where there is none that this job can go on with; and why not, where
        there is one.

    Raises:
        DeployError: the file is there and cannot be read.
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
        return None, "it says what cannot be"
    return state, ""


def forget(path: Path) -> None:
    """Remove a state, and what killed processes left while they wrote it or the ranges."""
    atomic.remove(path)
    clear_left_over(path)


def clear_left_over(path: Path) -> None:
    """Remove what killed processes left while they wrote a state or its ranges."""
    with suppress(OSError):  # housekeeping; the folder may not be there yet
        atomic.clear_left_over(path)
        atomic.clear_left_over(path.with_name(path.name.removesuffix(SUFFIX)))
