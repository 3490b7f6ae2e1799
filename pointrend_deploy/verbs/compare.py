"""`compare`: a bundle beside its PyTorch reference over pictures, with and without a truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pointrend_deploy.bundle.folder import GALLERY, MARKDOWN, PARITY, REPORT, Bundle, refuse_bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.columns import asked, open_columns
from pointrend_deploy.parity.comparison import CandidateName, CompareOptions
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.task import parity_task
from pointrend_deploy.progress import Bars, progress_bar
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.report.report import render_html, render_markdown
from pointrend_deploy.report.task import report_task
from pointrend_deploy.report.terminal import precision_lines, table
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.verbs.export.manifest import installed_versions
from pointrend_deploy.verbs.report import encode_gallery, keep


@dataclass(frozen=True)
class CompareResult:
    """What a comparison found. A result is true in a condition when every gate passed.

    Attributes:
        bundle: the bundle that was compared.
        run: the FP32 graph or engine beside PyTorch.
        gallery: tiles of the worst pictures, the worst first.
        precisions: a column for each precision; None where none were compared.
    """

    bundle: Bundle
    run: Run
    gallery: tuple[GalleryItem, ...]
    precisions: PrecisionTable | None = None

    def __bool__(self) -> bool:
        return self.run.passed and (self.precisions is None or bool(self.precisions))

    def summary(self, out: str | Path | None = None) -> str:
        """Return a table and a verdict for the terminal.

        Args:
            out: the folder of the report; None for the bundle itself.
        """
        text = table(self.run, Path(out or self.bundle.path) / REPORT)
        if self.precisions is None:
            return text
        return "\n".join([text, "", *precision_lines(self.precisions)])


def compare_bundle(
    bundle: str | Path,
    images: str | Path,
    *,
    labels: str | Path | None = None,
    coco: str | Path | None = None,
    runner: CandidateName = "onnx",
    engine: str | None = None,
    precisions: tuple[str, ...] | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
) -> CompareResult:
    """Compare a bundle with PyTorch; :func:`record` writes the result down.

    It is :func:`compare_with` with the options as arguments; see
    :class:`pointrend_deploy.parity.comparison.CompareOptions`.
    """
    options = CompareOptions(
        labels=labels,
        coco=coco,
        runner=runner,
        engine=engine,
        precisions=precisions,
        weights=weights,
        out=out,
    )
    return compare_with(bundle, images, options)


def compare_with(
    bundle: str | Path, images: str | Path, options: CompareOptions | None = None
) -> CompareResult:
    """Compare a bundle with PyTorch; :func:`record` writes the result down.

    Args:
        bundle: the folder.
        images: a picture or a folder of pictures; with ``options.coco`` the folder that the
            annotations' file names start from.
        options: how; all defaults when absent.

    Raises:
        DeployError: the bundle, the pictures or the truth cannot be used, ``options.out`` is a
            bundle or lies in one, or nothing can be written where the record will be. All this is
            found before the comparison starts.
    """
    options = options or CompareOptions()
    bars = Bars()
    with bars.step("opening the bundle"):
        opened = Bundle.open(bundle)
        results.of_bundle(opened)  # a damaged record is refused before the work, not after it
        if options.out is not None:
            refuse_bundle(Path(options.out))
        _refuse_unwritable(Path(options.out or bundle), options.out is None)
        names = None
        if options.precisions is not None:
            names = asked(opened, options.precisions, options.runner, options.engine)
    task = parity_task(opened)
    with bars.step("checking the pictures and their truth"):
        given = task.open_truth(opened, images, options)
    with bars.step("opening both runners"):
        reference = task.open_reference(opened, options.weights)
        if names is None:
            columns = counting = None
            # the limits are those of FP32, so of auto nothing else is asked
            auto = options.runner == "auto" and options.engine is None
            candidate = open_runner(
                opened,
                options.runner,
                engine=options.engine,
                precision="fp32" if auto else None,
            )
        else:
            columns = open_columns(opened, names, options.runner, options.engine)
            counting = task.open_counting(columns, given)
            candidate = columns.fp32
    gallery = report_task(opened.manifest.recipe.task).gallery(opened.manifest)
    with progress_bar("comparing") as tell:
        run = task.compare(
            candidate,
            reference,
            given,
            seen=gallery,
            counting=counting,
            versions=installed_versions(),
            progress=lambda done, total, name: tell(done, total),
        )
    found = None if columns is None else task.table(columns, counting, run)
    return CompareResult(opened, run, tuple(gallery.items), found)


def record(result: CompareResult, out: str | Path | None = None) -> None:
    """Write a comparison down: parity.json, gallery.json and both reports.

    Args:
        result: of the comparison.
        out: another folder for them, so that the bundle stays as it is; None for the bundle.

    Raises:
        DeployError: the disk refuses; the bundle is as it was.
    """
    bundle = result.bundle
    parity = results.merged(results.of_bundle(bundle), "compare", result.run, result.precisions)
    manifest, record = msgspec.to_builtins(bundle.manifest), msgspec.to_builtins(parity)
    files = {
        PARITY: results.encode(parity).decode(),
        GALLERY: encode_gallery(result.gallery),
        REPORT: render_html(manifest, record, result.gallery),
        MARKDOWN: render_markdown(manifest, record, result.gallery),
    }
    keep(bundle, files, out)


def _refuse_unwritable(folder: Path, is_bundle: bool) -> None:
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise DeployError(f"{there} is a file, not a folder", "give another folder with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DeployError(
            f"nothing can be written in {there}",
            "keep the record and the report elsewhere with --out FOLDER"
            if is_bundle
            else "give a folder of your own with --out",
        )
