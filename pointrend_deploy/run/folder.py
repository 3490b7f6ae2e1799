"""Run a bundle over pictures and folders of them: result files and ``results.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pointrend_deploy.bundle.folder import refuse_bundle_around
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.batches import in_batches
from pointrend_deploy.pictures.canvas import batch_of, from_rgb
from pointrend_deploy.pictures.files import printable, read_picture
from pointrend_deploy.pictures.sources import find_pictures
from pointrend_deploy.run.latency import latency_of
from pointrend_deploy.run.results import (
    OVERLAYS,
    RESULTS,
    SCHEMA,
    ResultRow,
    RunResults,
    Skipped,
    result_names,
    written_by,
)
from pointrend_deploy.run.runner import BundleRunner
from pointrend_deploy.run.task import TASKS, RunTask
from pointrend_deploy.run.writer import Clock, Item, PictureOptions, PictureWriter

Progress = Callable[[int, int], None]
"""Called with the number of pictures that are done, and the number of all."""


def _silent(done: int, total: int) -> None:
    pass


def run_pictures(
    runner: BundleRunner,
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    options: PictureOptions | None = None,
    *,
    progress: Progress = _silent,
) -> RunResults:
    """Run a bundle on pictures and on every picture of folders.

    A run writes ``overlays/NAME.jpg`` and ``results.json`` (marked incomplete until the end) under
    ``out``; with a semantic bundle also ``labels/NAME.png``, with an instance bundle also
    ``detections.json`` in COCO's results format. Each file is written whole or not at all; files
    of an earlier run are replaced where the names are the same. NAME is the picture's path without
    its suffix, or with it where two pictures differ in nothing else. It is relative to the deepest
    folder that every source lies in, so that pictures of two folders never share a name.

    Args:
        runner: from :func:`pointrend_deploy.run.open.open_runner`.
        sources: pictures, folders of pictures and patterns such as ``scenes/*/left.png``, or one
            of them; see :func:`pointrend_deploy.pictures.sources.find_pictures`.
        out: the folder for the results; made where it is missing.
        options: overlays and sub-folders; None for the usual ones.
        progress: called with the number of pictures that are done, and the number of all.

    Returns:
        The results; a picture that cannot be read is in ``skipped`` and does not stop the rest.

    Raises:
        DeployError: there is no picture, ``out`` is, contains or lies in a bundle, results would
            replace files no run wrote (see :func:`keep_pictures_safe`), the disk refuses, or the
            bundle fails to run.
        UsageError: an option makes no sense for the bundle's task.
    """
    out, options = Path(out), options or PictureOptions()
    given = [sources] if isinstance(sources, (str, Path)) else list(sources)
    manifest, task = runner.bundle.manifest, runner.task
    task.check(options)
    refuse_bundle_around(out, runner.bundle)
    found = find_pictures(given, recursive=options.recursive)
    keep_pictures_safe(found.folders, out, task)
    files = [file for file in found.places if not _is_result(file, out)]
    if not files:
        where = ", ".join(map(str, given))
        raise DeployError(f"the only pictures below {where} are results of earlier runs")
    keep_pictures_safe({file.parent for file in files}, out, task)
    places = [found.places[file] for file in files]
    names = result_names(places)
    one = len(given) == 1 and Path(given[0]).exists()
    results = RunResults(
        schema=SCHEMA,
        task=task.name,
        complete=False,
        bundle=manifest.name,
        runner=runner.name,
        precision=runner.precision,
        source=printable(str(given[0] if one else found.root)),
        sources=[printable(str(source)) for source in given],
        sub_folders_left=sum(each.resolve() != out.resolve() for each in found.sub_folders),
        pictures=[],
        skipped=[],
    )
    if not (out / RESULTS).is_file():  # the file of an earlier run stays until there is a better
        results.write(out)
    writer = task.writer(out, options, files)
    todo = [
        _Todo(file, printable(place.as_posix()), name)
        for file, place, name in zip(files, places, names, strict=True)
    ]
    job = _Job(runner, writer, todo, progress)
    try:
        job.run()
        writer.close()
    except BaseException as error:
        stopped = msgspec.structs.replace(results, pictures=job.done, skipped=job.skipped)
        with suppress(DeployError):
            writer.close()
        with suppress(DeployError):
            stopped.write(out)
        if isinstance(error, DeployError):
            said = f"{len(job.done)} of {len(files)} pictures were done and stay; "
            raise DeployError(error.message, said + error.hint) from error
        raise
    results = msgspec.structs.replace(
        results,
        complete=True,
        pictures=job.done,
        skipped=job.skipped,
        latency=latency_of(job.times, job.first_batch),
    )
    results.write(out)
    return results


def keep_pictures_safe(folders: Iterable[Path], out: Path, task: RunTask) -> None:
    """Refuse a folder for results where files that no run wrote would be replaced.

    Args:
        folders: that the pictures are in.
        out: the folder for the results.
        task: of the bundle that will be run.

    Raises:
        DeployError: ``out`` is a file; the pictures are in it or in its ``labels`` or
            ``overlays``; a file or folder that would be replaced is there without the
            ``results.json`` of an earlier run of the same task (it may be ground truth); or there
            is a ``results.json`` that no run wrote.
    """
    if out.exists() and not out.is_dir():
        raise DeployError(f"{out} is a file, not a folder for the results", "choose another --out")
    for folder in folders:
        if folder.resolve() == out.resolve() or _is_result(folder, out):
            raise DeployError(
                f"the results would be mixed with the pictures in {folder}", "choose another --out"
            )
    earlier = written_by(out)
    for name in (*task.owned, RESULTS):
        known = earlier in TASKS if name in (OVERLAYS, RESULTS) else earlier == task.name
        if (out / name).exists() and not known:
            raise DeployError(
                f"{out / name} is there already and was not written by a run of such a bundle; "
                "its contents might be lost",
                "choose another --out, or move it away",
            )


def _is_result(path: Path, out: Path) -> bool:
    """Whether a path is, or is inside, what a run of any task writes under ``out``."""
    here, owned = path.resolve(), {name for task in TASKS.values() for name in task.owned}
    return any(here.is_relative_to((out / name).resolve()) for name in owned)


@dataclass(frozen=True)
class _Todo:
    """A picture to run: its path, that in ``results.json``, and the name of its results."""

    path: Path
    file: str
    name: str


@dataclass
class _Job:
    """One run over pictures, batch by batch."""

    runner: BundleRunner
    writer: PictureWriter
    pictures: Sequence[_Todo]
    progress: Progress
    done: list[ResultRow] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    times: list[dict[str, float]] = field(default_factory=list)
    first_batch: int = 0

    def run(self) -> None:
        manifest = self.runner.bundle.manifest
        self._report()
        for batch in in_batches(self._items(), manifest.canvas.batch):
            clock = Clock()
            outputs = self.runner.infer(batch_of([item.fitted for item in batch], manifest))
            infer_ms = clock.lap() / len(batch)
            self.first_batch = self.first_batch or len(batch)
            for row, item in enumerate(batch):
                item.ms["infer"] = infer_ms
                self.done.append(self.writer.write(outputs, row, item, clock))
                self.times.append(item.ms)
                self._report()

    def _items(self) -> Iterator[Item]:
        """Read and fit the pictures that can be read; note the others as skipped."""
        for todo in self.pictures:
            clock = Clock()
            try:
                picture = read_picture(todo.path)
            except DeployError as error:
                self.skipped.append(Skipped(todo.file, printable(error.message)))
                self._report()
                continue
            ms = {"read": clock.lap()}
            fitted = self.runner.prepare(from_rgb(picture.rgb, self.runner.bundle.manifest))
            ms["prepare"] = clock.lap()
            yield Item(picture, fitted, todo.file, todo.name, ms)

    def _report(self) -> None:
        self.progress(len(self.done) + len(self.skipped), len(self.pictures))
