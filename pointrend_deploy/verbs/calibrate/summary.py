"""The result of a calibration, and its summary for the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pointrend_deploy.pictures.lists import FEW
from pointrend_deploy.quantize.ranges import Ranges, SkippedPicture

_NAMED: Final = 5
"""Most pictures or values that a note names."""


@dataclass(frozen=True)
class Calibration:
    """A finished calibration. It is true if every picture could be read.

    Attributes:
        bundle: folder of the bundle.
        ranges: the ranges, as written.
        file: file of the ranges.
        cache: file of the TensorRT calibration cache; None if none was written.
        seconds: time taken.
        resumed: number of pictures that an interrupted run had finished.
        derived: whether histograms of the same pictures and graphs existed, so that nothing ran.
        unseen: by graph file, the number of values that were never computed.
        said: further notes.
    """

    bundle: Path
    ranges: Ranges
    file: Path
    cache: Path | None
    seconds: float
    resumed: int
    derived: bool
    unseen: dict[str, int]
    said: tuple[str, ...] = ()

    @property
    def skipped(self) -> tuple[SkippedPicture, ...]:
        """Pictures that could not be read."""
        return tuple(each for each in self.ranges.skipped if not each.duplicate)

    def __bool__(self) -> bool:
        return not self.skipped

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the pictures and the values observed."""
        notes = list(self.said)
        count = len(self.ranges.pictures)
        if self.derived:
            notes.append(
                "these pictures went through this graph before: the ranges are computed from the "
                "histograms of that run"
            )
        if self.resumed:
            notes.append(f"resumed an interrupted run after {_number(self.resumed, 'picture')}")
        if count < FEW:
            notes.append(
                f"{_number(count, 'picture')} {'is' if count == 1 else 'are'} few: larger values "
                "may occur in other pictures; give at least 8, better 32 or more"
            )
        if doubles := [each.name for each in self.ranges.skipped if each.duplicate]:
            notes.append(f"same pixels as an earlier picture, counted once: {_names(doubles)}")
        if blank := [each.name for each in self.ranges.pictures if each.blank]:
            notes.append(
                "blank but counted (remove them from the list if your camera takes no such "
                f"pictures): {_names(blank)}"
            )
        notes += [
            f"{_number(missing, 'value')} of {file} {'was' if missing == 1 else 'were'} never "
            "computed: nothing was detected in these pictures"
            for file, missing in self.unseen.items()
            if missing
        ]
        if dead := [
            name
            for values in self.ranges.tensors.values()
            for name, seen in values.items()
            if seen.amax == 0
        ]:
            notes.append(f"values that are 0 in every picture: {_names(dead)}")
        return tuple(notes)

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        values = sum(len(seen) for seen in self.ranges.tensors.values())
        method: str = self.ranges.method
        if self.ranges.percentile is not None:
            method += f" {self.ranges.percentile:g}"
        lines = [
            f"pictures    {len(self.ranges.pictures)}",
            f"values      {values} of {', '.join(self.ranges.graphs)}",
            f"method      {method}",
            f"time        {self.seconds:.1f} s",
            *(f"note        {note}" for note in self.notes),
            *(f"skipped     {each.name}: {each.reason}" for each in self.skipped),
            f"ranges      {self.file}",
        ]
        if self.cache is not None:
            lines.append(f"cache       {self.cache}")
        own = self.file.parent == self.bundle
        words = ["pointrend-deploy", "quantize", str(self.bundle), "--precision", "int8"]
        words += [] if own else ["--ranges", str(self.file)]
        lines.append(f"next        {shlex.join(words)}")
        return "\n".join(lines)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
