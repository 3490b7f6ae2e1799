"""The record of a run over pictures, ``results.json``, and the names of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Protocol

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.latency import Latency

RESULTS = "results.json"
LABELS = "labels"
OVERLAYS = "overlays"
DETECTIONS = "detections.json"
SCHEMA = 1


class ResultRow(Protocol):
    """The row of ``results.json`` for one picture; each task adds its own fields."""

    @property
    def file(self) -> str:
        """The picture, relative to ``source``."""

    @property
    def overlay(self) -> str | None:
        """The overlay, relative to the results; None where none was written."""


class Skipped(msgspec.Struct, frozen=True):
    """A picture that could not be read, and why."""

    file: str
    reason: str


class RunResults(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of ``results.json``. As a bool, True where no picture was skipped.

    Attributes:
        schema: version of this form.
        task: the bundle's task.
        complete: False while the run goes on, and after a run that was stopped.
        bundle: the bundle's name.
        runner: the runner's name.
        precision: of the numbers it computes with.
        source: the folder that every ``file`` is relative to; where one picture was named, that
            picture.
        sources: the pictures, folders and patterns as the user wrote them.
        sub_folders_left: how many sub-folders of these folders were not searched.
        pictures: a row for each picture that was run, in the form of the task.
        skipped: the pictures that cannot be read.
        latency: median times; null while the run goes on, or where no picture was run.
    """

    schema: int
    task: str
    complete: bool
    bundle: str
    runner: str
    precision: Precision
    source: str
    sources: list[str]
    sub_folders_left: int
    pictures: list[ResultRow]
    skipped: list[Skipped]
    latency: Latency | None = None

    def __bool__(self) -> bool:
        return not self.skipped

    def write(self, out: Path) -> None:
        """Write ``results.json`` into a folder, whole or not at all."""
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        atomic.write_bytes(out / RESULTS, text + b"\n")


class _Written(msgspec.Struct, frozen=True):
    """The keys by which the ``results.json`` of a run is known from another file of that name."""

    schema: int
    complete: bool
    bundle: str
    runner: str
    pictures: list[msgspec.Raw]
    skipped: list[Skipped]
    task: str = "semantic"


def written_by(out: Path) -> str | None:
    """Find the task of the run that wrote a folder's ``results.json``; None where no run did."""
    try:
        return msgspec.json.decode((out / RESULTS).read_bytes(), type=_Written).task
    except (OSError, ValueError, RecursionError):
        return None


def result_names(files: Sequence[Path]) -> list[str]:
    """Give each picture's results a name without suffix; no two names differ in case alone.

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
    _refuse_files_as_folders(names)
    return names


def _refuse_files_as_folders(names: Sequence[str]) -> None:
    """Refuse names of which one's file would stand where another needs a folder."""
    files = {f"{name}{suffix}".casefold(): name for name in names for suffix in (".png", ".jpg")}
    for name in names:
        for folder in PurePath(name).parents:
            other = files.get(folder.as_posix().casefold())
            if other is not None:
                raise DeployError(
                    f"the results of {other} and {name} cannot stand side by side: one's file "
                    f"{folder.as_posix()} is the other's folder",
                    "rename the folder, or run the two by themselves, each with its own --out",
                )


def need_stages(names: Iterable[str], stages: Container[str]) -> None:
    """Refuse a bundle whose outputs are not all stages of the reference model.

    Args:
        names: of the bundle's outputs.
        stages: names of what the model computes.

    Raises:
        DeployError: naming the outputs that the model does not compute.
    """
    if unknown := [name for name in names if name not in stages]:
        raise DeployError(
            f"the model has no stage called {', '.join(unknown)}, which the bundle exports",
            "export the bundle again with this version",
        )
