"""A picture or a folder of them through a bundle: result files and ``results.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.pictures.canvas import batch_of, from_rgb
from pointrend_deploy.pictures.files import list_pictures, read_picture, sub_folders
from pointrend_deploy.run.instance.overlay import DRAW_ABOVE
from pointrend_deploy.run.instance.task import DetectionWriter, image_ids
from pointrend_deploy.run.results import (
    LABELS,
    OVERLAYS,
    RESULTS,
    SCHEMA,
    AnyResult,
    RunResults,
    Skipped,
    printable,
    result_names,
    written_by,
)
from pointrend_deploy.run.runner import BundleRunner
from pointrend_deploy.run.semantic.task import LabelWriter
from pointrend_deploy.run.writer import Clock, Item, PictureWriter

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
    draw_above: float | None = None,
    progress: Progress = _silent,
) -> RunResults:
    """Run a bundle on a picture or on every picture of a folder.

    Writes ``overlays/NAME.jpg`` and ``results.json`` (marked incomplete until the end) under
    ``out``, with a semantic bundle ``labels/NAME.png``, with an instance bundle
    ``detections.json`` in COCO's results format. Each file is whole or not there; those of an
    earlier run are replaced where the names are the same. NAME is the picture's stem, or its whole
    file name where two pictures share a stem.

    Args:
        runner: from :func:`pointrend_deploy.run.open.open_runner`.
        source: a picture, or a folder of pictures.
        out: the folder for the results; made if need be.
        overlays: whether to write overlays as well.
        recursive: whether to look into sub-folders; NAME then keeps them.
        draw_above: with an instance bundle, the score from which a thing is drawn, 0.5 when
            absent; it changes overlays only, never what is found.
        progress: called with how many pictures are done, of how many.

    Returns:
        The results; a picture that cannot be read is in ``skipped`` and does not stop the rest.

    Raises:
        DeployError: there is no picture, results would replace files no run wrote (see
            :func:`keep_pictures_safe`), the disk refuses, or the bundle fails to run.
        UsageError: ``draw_above`` is not in [0, 1], or the bundle is semantic.
    """
    source, out = Path(source), Path(out)
    manifest = runner.bundle.manifest
    _check_draw_above(manifest, draw_above)
    root = source if source.is_dir() else source.parent
    files = list_pictures(source, recursive=recursive)
    writer_class = DetectionWriter if manifest.recipe.task == "instance" else LabelWriter
    keep_pictures_safe(root, out, writer_class)
    files = [file for file in files if not _is_result(file, out)]
    if not files:
        raise DeployError(f"the only pictures below {source} are results of earlier runs")
    names = result_names([file.relative_to(root) for file in files])
    left = 0 if recursive else sum(f.resolve() != out.resolve() for f in sub_folders(source))
    results = RunResults(
        schema=SCHEMA,
        task=manifest.recipe.task,
        complete=False,
        bundle=manifest.name,
        runner=runner.name,
        source=printable(str(source)),
        sub_folders_left=left,
        pictures=[],
        skipped=[],
    )
    if not (out / RESULTS).is_file():  # else the last run's stays until there is a better one
        results.write(out)
    writer = _writer(manifest, out, overlays, files, draw_above)
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


def _check_draw_above(manifest: Manifest, draw_above: float | None) -> None:
    if draw_above is None:
        return
    if manifest.recipe.task != "instance":
        raise UsageError(
            f"{manifest.name} is a semantic bundle: its labels have no scores to draw by",
            "leave --draw-above out",
        )
    if not 0 <= draw_above <= 1:
        raise UsageError(f"scores run from 0 to 1; --draw-above is {draw_above}")


def _writer(
    manifest: Manifest, out: Path, overlays: bool, files: Sequence[Path], draw_above: float | None
) -> PictureWriter:
    if manifest.recipe.task != "instance":
        return LabelWriter(manifest, out, overlays)
    above = DRAW_ABOVE if draw_above is None else draw_above
    ids = dict(zip(files, image_ids(files), strict=True))
    return DetectionWriter(manifest, out, overlays, ids, above)


def keep_pictures_safe(root: Path, out: Path, writer: type[PictureWriter]) -> None:
    """Refuse a folder for results in which files that no run wrote would be replaced.

    Args:
        root: the folder of the pictures.
        out: the folder for the results.
        writer: what will write there.

    Raises:
        DeployError: ``out`` is a file; the pictures lie in it or in its ``labels`` or
            ``overlays``; or what would be written is there without the ``results.json`` of an
            earlier run of the same task (ground truth, perhaps), or ``results.json`` is there and
            not of a run.
    """
    if out.exists() and not out.is_dir():
        raise DeployError(f"{out} is a file, not a folder for the results", "choose another --out")
    if root.resolve() == out.resolve() or _is_result(root, out):
        raise DeployError(
            f"the results would be mixed with the pictures in {root}", "choose another --out"
        )
    earlier = written_by(out)
    for name in (*writer.owned, RESULTS):
        known = earlier is not None if name in (OVERLAYS, RESULTS) else earlier == writer.task
        if (out / name).exists() and not known:
            raise DeployError(
                f"{out / name} is there already and was not written by a run of such a bundle; "
                "what it holds might be lost",
                "choose another --out, or move it away",
            )


def _is_result(path: Path, out: Path) -> bool:
    here = path.resolve()
    return any(here.is_relative_to((out / name).resolve()) for name in (LABELS, OVERLAYS))


@dataclass
class _Job:
    """One run over pictures, batch by batch."""

    runner: BundleRunner
    root: Path
    writer: PictureWriter
    names: dict[Path, str]
    progress: Progress
    done: list[AnyResult] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def run(self) -> None:
        manifest = self.runner.bundle.manifest
        self._tell()
        for batch in self._batches(manifest.canvas.batch):
            clock = Clock()
            outputs = self.runner.infer(batch_of([item.fitted for item in batch], manifest))
            infer_ms = clock.lap() / len(batch)
            for row, item in enumerate(batch):
                item.ms["infer"] = infer_ms
                self.done.append(self.writer.write(outputs, row, item, clock))
                self._tell()

    def _batches(self, count: int) -> Iterator[list[Item]]:
        waiting: list[Item] = []
        for path, name in self.names.items():
            clock = Clock()
            file = printable(path.relative_to(self.root).as_posix())
            try:
                picture = read_picture(path)
            except DeployError as error:
                self.skipped.append(Skipped(file, printable(error.message)))
                self._tell()
                continue
            ms = {"read": clock.lap()}
            fitted = self.runner.prepare(from_rgb(picture.rgb, self.runner.bundle.manifest))
            ms["prepare"] = clock.lap()
            waiting.append(Item(picture, fitted, file, name, ms))
            if len(waiting) == count:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _tell(self) -> None:
        self.progress(len(self.done) + len(self.skipped), len(self.names))
