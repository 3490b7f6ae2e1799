"""What a run does with each picture's answer: one writer a task."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt

from pointrend_deploy import atomic
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.pictures.files import Picture
from pointrend_deploy.run.overlay import overlay_suffix, picture_bytes
from pointrend_deploy.run.results import OVERLAYS, AnyResult, Task

Array = npt.NDArray[Any]


class Clock:
    """Milliseconds since it was made or last asked."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Milliseconds since the last call."""
        now = time.perf_counter()
        lap_ms, self._since = 1000 * (now - self._since), now
        return lap_ms


@dataclass
class Item:
    """A picture on its way.

    Attributes:
        picture: as read.
        fitted: as it lies on the canvas.
        file: its path for ``results.json``.
        name: of its result files, without suffix.
        ms: milliseconds so far, by step.
    """

    picture: Picture
    fitted: Fitted
    file: str
    name: str
    ms: dict[str, float]

    def rounded_ms(self) -> dict[str, float]:
        """The times for ``results.json``."""
        return {key: round(value, 3) for key, value in self.ms.items()}


class PictureWriter(ABC):
    """Writes what a bundle says of each picture, and at the end what it says of all.

    Attributes:
        task: of the bundles it is for.
        owned: files and folders it writes under the folder for results.
    """

    task: ClassVar[Task]
    owned: ClassVar[tuple[str, ...]]

    def __init__(self, manifest: Manifest, out: Path, overlays: bool) -> None:
        self.manifest = manifest
        self.out = out
        self.overlays = overlays

    @abstractmethod
    def write(self, outputs: dict[str, Array], row: int, item: Item, clock: Clock) -> AnyResult:
        """Find and write the results of the picture in one row of a batch's outputs.

        Raises:
            DeployError: the disk refuses, or the outputs cannot be right.
        """

    def close(self) -> None:
        """Write what belongs to all pictures so far. Raises DeployError where the disk refuses."""
        return

    def _write_overlay(self, rgb: npt.NDArray[Any], item: Item) -> str:
        """Write a drawn picture; its path relative to the results."""
        suffix = overlay_suffix(item.fitted.picture_hw)
        file = f"{OVERLAYS}/{item.name}{suffix}"
        atomic.write_bytes(self.out / file, picture_bytes(rgb, suffix))
        return file
