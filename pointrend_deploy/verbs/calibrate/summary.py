"""What a calibration did, in words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pointrend_deploy.pictures.lists import FEW
from pointrend_deploy.quantize.ranges import Ranges, SkippedPicture

_NAMED: Final = 5


@dataclass(frozen=True)
class Calibration:
    """A calibration that is written. True when every picture could be read.

    Attributes:
        bundle: the folder.
        ranges: as written.
        file: of the ranges.
        cache: file of the TensorRT cache; None where none was asked for.
        seconds: it took.
        resumed: pictures that an interrupted calibration had dealt with.
        derived: whether ranges of the same pictures and graphs were there, and nothing was run.
        unseen: how many values of each graph were never computed.
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
        """Pictures that cannot be read."""
        return tuple(each for each in self.ranges.skipped if not each.duplicate)

    def __bool__(self) -> bool:
        return not self.skipped

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the pictures and of what was seen."""
        notes = list(self.said)
        count = len(self.ranges.pictures)
        if self.derived:
            notes.append(
                "these pictures went through this graph before: the ranges follow from what was "
                "seen then"
            )
        if self.resumed:
            notes.append(f"went on after {_number(self.resumed, 'picture')} of an interrupted run")
        if count < FEW:
            notes.append(
                f"{_number(count, 'picture')} {'is' if count == 1 else 'are'} few: ranges may miss "
                "what others would show; give at least 8, better 32 or more"
            )
        if doubles := [each.name for each in self.ranges.skipped if each.duplicate]:
            notes.append(f"shown more than once and counted once: {_names(doubles)}")
        if blank := [each.name for each in self.ranges.pictures if each.blank]:
            notes.append(
                f"blank, and counted all the same (take them off the list if your camera gives "
                f"none): {_names(blank)}"
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
            notes.append(f"zero in every picture: {_names(dead)}")
        return tuple(notes)

    def summary(self) -> str:
        """A few lines for the terminal."""
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
