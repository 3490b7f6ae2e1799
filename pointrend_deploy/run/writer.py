"""The parts of a run that every task uses: a picture on its way, and the writer of its results."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pointrend_deploy import atomic
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.pictures.files import Picture
from pointrend_deploy.run.overlay import overlay_suffix, picture_bytes
from pointrend_deploy.run.results import OVERLAYS, ResultRow

Array = npt.NDArray[Any]
GraphCall = Callable[[dict[str, Array]], dict[str, Array]]
"""One call of one graph: its inputs by name in, its outputs by name out."""


@dataclass(frozen=True)
class PictureOptions:
    """How a run over pictures goes.

    Attributes:
        overlays: whether to write overlays as well.
        recursive: whether to search sub-folders; the names of results then keep them.
        draw_above: with an instance bundle, the lowest score that is drawn, in [0, 1]; 0.5 where
            None. It changes overlays only, never what is found.
    """

    overlays: bool = True
    recursive: bool = False
    draw_above: float | None = None


class Clock:
    """Measures the time between calls of :meth:`lap`, in milliseconds."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Return the milliseconds since the last call, or since the clock was made."""
        now = time.perf_counter()
        lap_ms, self._since = 1000 * (now - self._since), now
        return lap_ms


@dataclass
class Item:
    """A picture on its way through a run.

    Attributes:
        picture: the file and its pixels.
        fitted: the picture on the canvas.
        file: its path in ``results.json``.
        name: the name of its result files, without suffix.
        ms: milliseconds so far, by step.
    """

    picture: Picture
    fitted: Fitted
    file: str
    name: str
    ms: dict[str, float]

    def rounded_ms(self) -> dict[str, float]:
        """Round the times to microseconds, for ``results.json``."""
        return {key: round(value, 3) for key, value in self.ms.items()}


class PictureWriter(ABC):
    """Writes the results of each picture and, at the end, those of the whole run.

    Args:
        manifest: the bundle's.
        out: the folder for the results.
        overlays: whether to draw overlays.
    """

    def __init__(self, manifest: Manifest, out: Path, overlays: bool) -> None:
        self.manifest = manifest
        self.out = out
        self.overlays = overlays

    @abstractmethod
    def write(self, outputs: dict[str, Array], row: int, item: Item, clock: Clock) -> ResultRow:
        """Compute and write the results of the picture in one row of a batch's outputs.

        Args:
            outputs: the bundle's outputs by name, the batch axis first.
            row: of the picture in the batch.
            item: the picture; the times of the steps taken here are added to its ``ms``.
            clock: started when the step before ended.

        Returns:
            The picture's row of ``results.json``.

        Raises:
            DeployError: the disk refuses, or the outputs cannot be right.
        """

    def close(self) -> None:
        """Write what belongs to all pictures so far. Raises DeployError where the disk refuses."""
        return

    def _write_overlay(self, rgb: npt.NDArray[Any], item: Item) -> str:
        """Write a drawn picture, (H, W, 3) uint8 RGB; return its path relative to the results."""
        suffix = overlay_suffix(item.fitted.picture_hw)
        file = f"{OVERLAYS}/{item.name}{suffix}"
        atomic.write_bytes(self.out / file, picture_bytes(rgb, suffix))
        return file
