"""What a run over pictures leaves behind: ``results.json`` and the names of its files.

MERGED: What a bundle says of one picture, by task, and how that is found from a batch's outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy import atomic

RESULTS = "results.json"
LABELS = "labels"
OVERLAYS = "overlays"
DETECTIONS = "detections.json"
SCHEMA = 1
Task = Literal["semantic", "instance"]


class PictureResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a semantic bundle made of one picture.

    Attributes:
        file: the picture, relative to the folder it was found in.
        labels: its label map, relative to the results: palette PNG, values are class numbers.
        overlay: its overlay, likewise, or null where none was asked for.
        picture_hw: its own height and width, which are the label map's.
        fitted_hw: its height and width on the canvas.
        labels_from: ``exact``, ``logits-bilinear`` or ``labels-nearest``.
        class_shares: share of the pixels by class name, in the classes' order, zeros left out.
        ms: milliseconds to ``read``, ``prepare``, ``infer`` (of a batch: its part), find the
            ``labels`` at the picture's size, and ``write``.
    """

    file: str
    labels: str
    overlay: str | None
    picture_hw: tuple[int, int]
    fitted_hw: tuple[int, int]
    labels_from: LabelsFrom
    class_shares: dict[str, float]
    ms: dict[str, float]


class InstanceResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance bundle made of one picture; the things themselves are in DETECTIONS.

    Attributes:
        file: the picture, relative to the folder it was found in.
        image_id: the picture's id in ``detections.json``.
        overlay: its overlay, relative to the results, or null where none was asked for.
        picture_hw: its own height and width, which are the masks'.
        fitted_hw: its height and width on the canvas.
        detections: how many things were found.
        class_counts: how many by class name, in the classes' order, zeros left out.
        ms: milliseconds to ``read``, ``prepare``, ``infer`` (of a batch: its part), find the
            ``instances`` at the picture's size, and ``write``.
    """

    file: str
    image_id: int
    overlay: str | None
    picture_hw: tuple[int, int]
    fitted_hw: tuple[int, int]
    detections: int
    class_counts: dict[str, int]
    ms: dict[str, float]


class Skipped(msgspec.Struct, frozen=True):
    """A picture that could not be read, and why."""

    file: str
    reason: str


AnyResult = PictureResult | InstanceResult


class RunResults(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of ``results.json``. True when no picture was skipped.

    Attributes:
        task: the bundle's; ``pictures`` are of the form that goes with it.
        complete: False while the run goes on, and for ever where it was stopped.
        bundle: the bundle's name.
        runner: the runner's name.
        source: the picture or folder as it was given.
        sub_folders_left: sub-folders of that folder that were not looked into.
    """

    schema: int
    task: Task
    complete: bool
    bundle: str
    runner: str
    source: str
    sub_folders_left: int
    pictures: list[AnyResult]
    skipped: list[Skipped]

    def __bool__(self) -> bool:
        return not self.skipped

    def write(self, out: Path) -> None:
        """Write ``results.json`` into a folder, whole or not at all."""
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        atomic.write_bytes(out / RESULTS, text + b"\n")


class _Written(msgspec.Struct, frozen=True):
    """What tells the ``results.json`` of a run from another file of that name."""

    schema: int
    complete: bool
    bundle: str
    runner: str
    pictures: list[msgspec.Raw]
    skipped: list[Skipped]
    task: Task = "semantic"


def written_by(out: Path) -> Task | None:
    """The task of the run whose ``results.json`` a folder holds; None where it holds none."""
    try:
        return msgspec.json.decode((out / RESULTS).read_bytes(), type=_Written).task
    except (OSError, ValueError, RecursionError):
        return None


def printable(text: str) -> str:
    r"""A file name that JSON can hold: bytes that are no UTF-8 become ``\udc..`` spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def result_names(files: Sequence[Path]) -> list[str]:
    """A name for each picture's results, without suffix, no two alike whatever the case.

    Args:
        files: relative paths, all different.

    Returns:
        ``folder/stem``, or ``folder/stem.suffix`` where the stem is not the picture's alone.
    """
    stems = [file.with_suffix("").as_posix() for file in files]
    shared = Counter(stem.casefold() for stem in stems)
    wanted = [
        stem if shared[stem.casefold()] == 1 else file.as_posix()
        for stem, file in zip(stems, files, strict=True)
    ]
    taken: set[str] = set()
    names: list[str] = []
    for name in wanted:
        free, number = name, 1
        while free.casefold() in taken:
            number += 1
            free = f"{name}-{number}"
        taken.add(free.casefold())
        names.append(free)
    return names


def class_shares(labels: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, float]:
    """Share of the pixels of each class that occurs, by name, in the classes' order."""
    counts = np.bincount(labels.reshape(-1), minlength=len(names))
    return {
        name: round(float(n) / labels.size, 6) for name, n in zip(names, counts, strict=True) if n
    }


LabelsFrom = Literal["exact", "logits-bilinear", "labels-nearest"]
Array = npt.NDArray[Any]
