"""Run a bundle over a picture or a folder of them: result files and ``results.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.batches import in_batches
from pointrend_deploy.pictures.canvas import batch_of, from_rgb
from pointrend_deploy.pictures.files import list_pictures, printable, read_picture, sub_folders
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
    source: str | Path,
    out: str | Path,
    options: PictureOptions | None = None,
    *,
    progress: Progress = _silent,
) -> RunResults:
    """Run a bundle on a picture or on every picture of a folder.

    A run writes ``overlays/NAME.jpg`` and ``results.json`` (marked incomplete until the end) under
    ``out``; with a semantic bundle also ``labels/NAME.png``, with an instance bundle also
    ``detections.json`` in COCO's results format. Each file is written whole or not at all; files
    of an earlier run are replaced where the names are the same. NAME is the picture's stem, or its
    whole file name where two pictures share a stem.

    Args:
        runner: from :func:`pointrend_deploy.run.open.open_runner`.
        source: a picture, or a folder of pictures.
        out: the folder for the results; made where it is missing.
        options: overlays and sub-folders; None for the usual ones.
        progress: called with the number of pictures that are done, and the number of all.

    Returns:
        The results; a picture that cannot be read is in ``skipped`` and does not stop the rest.

    Raises:
        DeployError: there is no picture, results would replace files no run wrote (see
            :func:`keep_pictures_safe`), the disk refuses, or the bundle fails to run.
        UsageError: an option makes no sense for the bundle's task.
    """
    source, out, options = Path(source), Path(out), options or PictureOptions()
    manifest, task = runner.bundle.manifest, runner.task
    task.check(options)
    root = source if source.is_dir() else source.parent
    files = list_pictures(source, recursive=options.recursive)
    keep_pictures_safe(root, out, task)
    files = [file for file in files if not _is_result(file, out)]
    if not files:
        raise DeployError(f"the only pictures below {source} are results of earlier runs")
    names = result_names([file.relative_to(root) for file in files])
    left = 0
    if not options.recursive:
        left = sum(folder.resolve() != out.resolve() for folder in sub_folders(source))
    results = RunResults(
        schema=SCHEMA,
        task=task.name,
        complete=False,
        bundle=manifest.name,
        runner=runner.name,
        source=printable(str(source)),
        sub_folders_left=left,
        pictures=[],
        skipped=[],
    )
    if not (out / RESULTS).is_file():  # the file of an earlier run stays until there is a better
        results.write(out)
    writer = task.writer(out, options, files)
    job = _Job(runner, root, writer, dict(zip(files, names, strict=True)), progress)
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
        results, complete=True, pictures=job.done, skipped=job.skipped
    )
    results.write(out)
    return results


def keep_pictures_safe(root: Path, out: Path, task: RunTask) -> None:
    """Refuse a folder for results where files that no run wrote would be replaced.

    Args:
        root: the folder of the pictures.
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
    if root.resolve() == out.resolve() or _is_result(root, out):
        raise DeployError(
            f"the results would be mixed with the pictures in {root}", "choose another --out"
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


@dataclass
class _Job:
    """One run over pictures, batch by batch."""

    runner: BundleRunner
    root: Path
    writer: PictureWriter
    names: dict[Path, str]
    progress: Progress
    done: list[ResultRow] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def run(self) -> None:
        manifest = self.runner.bundle.manifest
        self._report()
        for batch in in_batches(self._items(), manifest.canvas.batch):
            clock = Clock()
            outputs = self.runner.infer(batch_of([item.fitted for item in batch], manifest))
            infer_ms = clock.lap() / len(batch)
            for row, item in enumerate(batch):
                item.ms["infer"] = infer_ms
                self.done.append(self.writer.write(outputs, row, item, clock))
                self._report()

    def _items(self) -> Iterator[Item]:
        """Read and fit the pictures that can be read; note the others as skipped."""
        for path, name in self.names.items():
            clock = Clock()
            file = printable(path.relative_to(self.root).as_posix())
            try:
                picture = read_picture(path)
            except DeployError as error:
                self.skipped.append(Skipped(file, printable(error.message)))
                self._report()
                continue
            ms = {"read": clock.lap()}
            fitted = self.runner.prepare(from_rgb(picture.rgb, self.runner.bundle.manifest))
            ms["prepare"] = clock.lap()
            yield Item(picture, fitted, file, name, ms)

    def _report(self) -> None:
        self.progress(len(self.done) + len(self.skipped), len(self.names))
