"""A picture or a folder of them through a bundle: label maps, overlays and ``results.json``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.overlay import (
    class_colours,
    label_png,
    overlay,
    overlay_suffix,
    picture_bytes,
)
from pointrend_deploy.run.preprocess import Fitted, batch_of, from_rgb
from pointrend_deploy.run.results import (
    LABELS,
    OVERLAYS,
    RESULTS,
    SCHEMA,
    PictureResult,
    RunResults,
    Skipped,
    class_shares,
    printable,
    result_names,
)
from pointrend_deploy.run.runner import BundleRunner, Prediction
from pointrend_deploy.run.source import Picture, list_pictures, read_picture, sub_folders

Progress = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""


def _silent(done: int, total: int) -> None:
    pass


def run_pictures(
    runner: BundleRunner,
    source: str | Path,
    out: str | Path,
    *,
    overlays: bool = True,
    recursive: bool = False,
    progress: Progress = _silent,
) -> RunResults:
    """Run a bundle on a picture or on every picture of a folder.

    Writes ``labels/NAME.png``, ``overlays/NAME.jpg`` and ``results.json`` (marked incomplete until
    the end) under ``out``, each file whole or not at all; those of an earlier run are replaced
    where the names are the same. NAME is the picture's stem, or its whole file name where two
    pictures share a stem.

    Args:
        runner: from :func:`pointrend_deploy.run.runner.open_runner`.
        source: a picture, or a folder of pictures.
        out: the folder for the results; made if need be.
        overlays: whether to write overlays as well.
        recursive: whether to look into sub-folders; NAME then keeps them.
        progress: called with how many pictures are done, of how many.

    Returns:
        The results; a picture that cannot be read is in ``skipped`` and does not stop the rest.

    Raises:
        DeployError: there is no picture, results would replace files no run wrote (see
            :func:`keep_pictures_safe`), the disk refuses, or the bundle fails to run.
    """
    source, out = Path(source), Path(out)
    root = source if source.is_dir() else source.parent
    files = list_pictures(source, recursive=recursive)
    keep_pictures_safe(root, out)
    files = [file for file in files if not _is_result(file, out)]
    if not files:
        raise DeployError(f"the only pictures below {source} are results of earlier runs")
    names = result_names([file.relative_to(root) for file in files])
    left = 0 if recursive else sum(f.resolve() != out.resolve() for f in sub_folders(source))
    results = RunResults(
        schema=SCHEMA,
        complete=False,
        bundle=runner.bundle.manifest.name,
        runner=runner.name,
        source=printable(str(source)),
        sub_folders_left=left,
        pictures=[],
        skipped=[],
    )
    if not (out / RESULTS).is_file():  # else the last run's stays until there is a better one
        results.write(out)
    job = _Job(runner, root, out, overlays, dict(zip(files, names, strict=True)), progress)
    try:
        job.run()
    except BaseException as error:
        stopped = msgspec.structs.replace(results, pictures=job.done, skipped=job.skipped)
        with suppress(DeployError):
            stopped.write(out)
        if isinstance(error, DeployError):
            said = f"{len(job.done)} of {len(files)} pictures were done and stay; "
            raise DeployError(error.message, said + error.hint) from error
        raise
    results = msgspec.structs.replace(
        results, complete=True, pictures=job.done, skipped=job.skipped
    )
    results.write(out)
    return results


def keep_pictures_safe(root: Path, out: Path) -> None:
    """Refuse a folder for results in which files that no run wrote would be replaced.

    Args:
        root: the folder of the pictures.
        out: the folder for the results.

    Raises:
        DeployError: ``out`` is a file; the pictures lie in it or in its ``labels`` or
            ``overlays``; or these are there without the ``results.json`` of an earlier run
            (ground truth, perhaps).
    """
    if out.exists() and not out.is_dir():
        raise DeployError(f"{out} is a file, not a folder for the results", "choose another --out")
    if root.resolve() == out.resolve() or _is_result(root, out):
        raise DeployError(
            f"the results would be mixed with the pictures in {root}", "choose another --out"
        )
    for folder in (out / LABELS, out / OVERLAYS):
        if folder.exists() and not is_run(out):
            raise DeployError(
                f"{folder} is there already and was not written by a run; its files might be lost",
                "choose another --out, or move that folder away",
            )


def is_run(out: Path) -> bool:
    """Whether a folder holds the ``results.json`` of a run, and not another file of that name."""
    try:
        msgspec.json.decode((out / RESULTS).read_bytes(), type=RunResults)
    except (OSError, ValueError, RecursionError):
        return False
    return True


def _is_result(path: Path, out: Path) -> bool:
    here = path.resolve()
    return any(here.is_relative_to((out / name).resolve()) for name in (LABELS, OVERLAYS))


@dataclass
class _Job:
    """One run over pictures, batch by batch."""

    runner: BundleRunner
    root: Path
    out: Path
    overlays: bool
    names: dict[Path, str]
    progress: Progress
    done: list[PictureResult] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def run(self) -> None:
        manifest = self.runner.bundle.manifest
        self._tell()
        for batch in self._batches(manifest.canvas.batch):
            clock = _Clock()
            outputs = self.runner.infer(batch_of([item.fitted for item in batch], manifest))
            infer_ms = clock.lap() / len(batch)
            for row, item in enumerate(batch):
                prediction = self.runner.finish(outputs, row, item.fitted)
                item.ms |= {"infer": infer_ms, "labels": clock.lap()}
                self.done.append(self._write(item, prediction, clock))
                self._tell()

    def _batches(self, count: int) -> Iterator[list[_Item]]:
        waiting: list[_Item] = []
        for path in self.names:
            clock = _Clock()
            try:
                picture = read_picture(path)
            except DeployError as error:
                self.skipped.append(Skipped(self._relative(path), printable(error.message)))
                self._tell()
                continue
            read_ms = clock.lap()
            fitted = self.runner.prepare(from_rgb(picture.rgb, self.runner.bundle.manifest))
            waiting.append(_Item(picture, fitted, {"read": read_ms, "prepare": clock.lap()}))
            if len(waiting) == count:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _write(self, item: _Item, prediction: Prediction, clock: _Clock) -> PictureResult:
        classes = self.runner.bundle.manifest.semantic.classes
        colours = class_colours(classes)
        labels, name = prediction["labels"], self.names[item.picture.path]
        label_file, overlay_file = f"{LABELS}/{name}.png", None
        atomic.write_bytes(self.out / label_file, label_png(labels, colours))
        if self.overlays:
            suffix = overlay_suffix(item.fitted.picture_hw)
            overlay_file = f"{OVERLAYS}/{name}{suffix}"
            mixed = overlay(item.picture.rgb, labels, colours)
            atomic.write_bytes(self.out / overlay_file, picture_bytes(mixed, suffix))
        item.ms["write"] = clock.lap()
        return PictureResult(
            file=self._relative(item.picture.path),
            labels=printable(label_file),
            overlay=printable(overlay_file) if overlay_file else None,
            picture_hw=item.fitted.picture_hw,
            fitted_hw=item.fitted.fitted_hw,
            labels_from=prediction["labels_from"],
            class_shares=class_shares(labels, classes.names),
            ms={key: round(value, 3) for key, value in item.ms.items()},
        )

    def _relative(self, path: Path) -> str:
        return printable(path.relative_to(self.root).as_posix())

    def _tell(self) -> None:
        self.progress(len(self.done) + len(self.skipped), len(self.names))


@dataclass
class _Item:
    """A picture on its way: as read, on the canvas, and its times so far."""

    picture: Picture
    fitted: Fitted
    ms: dict[str, float]


class _Clock:
    """Milliseconds since it was made or last asked."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        lap_ms, self._since = 1000 * (now - self._since), now
        return lap_ms
