"""`compare`: a bundle beside its PyTorch reference over pictures, with and without ground truth.

MERGED: `compare` for instance bundles: where the truth comes from, and both sides opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy.typing as npt

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import GALLERY, MARKDOWN, PARITY, REPORT, Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.parity.columns import asked, open_columns
from pointrend_deploy.parity.instance.columns import instance_columns, instance_table
from pointrend_deploy.parity.instance.compare import compare_instances
from pointrend_deploy.parity.instance.picture import ToCompare
from pointrend_deploy.parity.instance.verify import PictureReference
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.record.precisions import PrecisionName, PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.parity.semantic.columns import label_columns, label_table
from pointrend_deploy.parity.semantic.compare import compare
from pointrend_deploy.progress import Bars, progress_bar
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.report.gallery.instance import Gallery
from pointrend_deploy.report.gallery.semantic import collect
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.report.report import render_html, render_markdown
from pointrend_deploy.report.terminal import GALLERY_PICTURES, precision_lines, table
from pointrend_deploy.run.backends.pytorch import TorchRunner
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.truth.annotations import InstanceTruth, need_evaluator
from pointrend_deploy.truth.cityscapes import read_cityscapes
from pointrend_deploy.truth.coco import read_coco
from pointrend_deploy.truth.label_maps import pairs
from pointrend_deploy.verbs.export.manifest import installed_versions
from pointrend_deploy.verbs.report import encode_gallery

CandidateName = Literal["onnx", "tensorrt"]


@dataclass(frozen=True)
class CompareResult:
    """What was found of which bundle, and tiles to show. Truthy when every gate passed.

    Attributes:
        run: of the FP32 graph or engine beside PyTorch.
        precisions: a column each, where precisions were asked for.
    """

    bundle: Bundle
    run: Run
    gallery: tuple[GalleryItem, ...]
    precisions: PrecisionTable | None = None

    def __bool__(self) -> bool:
        return self.run.passed and (self.precisions is None or bool(self.precisions))

    def summary(self, out: str | Path | None = None) -> str:
        """A table and a verdict for the terminal; ``out`` is where the report will lie."""
        told = table(self.run, Path(out or self.bundle.path) / REPORT)
        if self.precisions is None:
            return told
        return "\n".join([told, "", *precision_lines(self.precisions)])


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
    """Compare a bundle with PyTorch; :func:`record` keeps what was found.

    Args:
        bundle: the folder.
        images: a picture or a folder of pictures; with ``coco`` the folder its file names start
            from.
        labels: of a semantic bundle ground-truth label maps by the same stems, or a Cityscapes
            gtFine folder; of an instance bundle a gtFine folder with instance ids.
        coco: of an instance bundle a COCO annotation file; only its pictures are compared.
        runner: the side compared with PyTorch: ONNX Runtime, or an engine of the bundle.
        engine: the engine's folder under ``engines/``; None for the only one that fits.
        precisions: names of those to compare beside PyTorch, a column each, or ``all`` alone; the
            FP32 graph is always compared. None compares ``runner``'s own graph or engine only.
        weights: for a bundle exported without them.
        out: the folder :func:`record` will be given, so that one that cannot be written to is
            refused before the work.

    Raises:
        DeployError: the bundle, the pictures or the truth cannot be used, or nothing can be
            written where the record will go.
    """
    if runner not in get_args(CandidateName):
        raise UsageError(
            f"{runner} is not a side to compare with PyTorch", "use --runner onnx or tensorrt"
        )
    if labels is not None and coco is not None:
        raise UsageError("--labels and --coco are two truths", "give one of them")
    bars = Bars()
    with bars.step("opening the bundle"):
        opened = Bundle.open(bundle)
        results.of_bundle(opened)  # a damaged record is said before the work, not after it
        _refuse_unwritable(Path(bundle if out is None else out), out is None)
        names = None if precisions is None else asked(opened, precisions, runner, engine)
    if opened.manifest.recipe.task == "instance":
        run, gallery, found_precisions = compare_instance_bundle(
            opened,
            images,
            labels,
            coco,
            runner,
            engine,
            weights,
            bars,
            names,
        )
        return CompareResult(opened, run, tuple(gallery), found_precisions)
    if coco is not None:
        raise UsageError(
            f"{opened.manifest.name} is a semantic bundle; --coco is for instance bundles",
            "give label maps with --labels",
        )
    with bars.step("opening both runners"):
        listed = pairs(images, labels)
        reference = TorchRunner(opened, weights)
        columns = None if names is None else open_columns(opened, names, runner, engine)
        candidate = columns.fp32 if columns else open_runner(opened, runner, engine=engine)
        watching = None if columns is None else label_columns(columns)
    with progress_bar("comparing") as tell:
        run = compare(
            candidate,
            reference,
            listed,
            versions=installed_versions(),
            progress=lambda done, total, name: tell(done, total),
            watch=watching,
        )
    skipped = {item.name for item in run.skipped}
    readable = [pair for pair in listed if pair.name not in skipped]
    with bars.step("drawing the pictures"):
        items = collect(candidate, reference, readable, GALLERY_PICTURES)
    found = label_table(columns, watching, run) if columns and watching else None
    return CompareResult(opened, run, tuple(items), found)


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


def record(result: CompareResult, out: str | Path | None = None) -> None:
    """Keep a comparison: parity.json, gallery.json and both reports.

    Args:
        result: what was found.
        out: another folder for them; the bundle then stays as it is. The bundle otherwise.

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
    if out is None:
        bundle.update(files)
        return
    for name, text in files.items():
        atomic.write_text(Path(out) / name, text)


Array = npt.NDArray[Any]


def compare_instance_bundle(
    bundle: Bundle,
    images: str | Path,
    labels: str | Path | None,
    coco: str | Path | None,
    runner: CandidateName,
    engine: str | None,
    weights: str | Path | None,
    bars: Bars,
    precisions: tuple[PrecisionName, ...] | None = None,
) -> tuple[Run, list[GalleryItem], PrecisionTable | None]:
    """Compare an instance bundle with PyTorch; see ``verbs.compare.compare_bundle``."""
    recipe, _ = bundle.manifest.instances
    truth, scorer = None, None
    if labels is not None or coco is not None:
        need_evaluator()
        with bars.step("checking the annotations"):
            truth = _truth(images, labels, coco, recipe)
        scorer = Scorer(truth, recipe)
        pictures = [ToCompare(each.name, each.path, each.image_id) for each in truth.pictures]
    else:
        pictures = [ToCompare(each.name, each.picture) for each in pairs(images)]
    with bars.step("opening both runners"):
        reference = _reference(bundle, weights)
        columns = None
        if precisions is not None:
            columns = open_columns(bundle, precisions, runner, engine)
        candidate = columns.fp32 if columns else open_runner(bundle, runner, engine=engine)
        watching = None if columns is None else instance_columns(columns, truth)
    gallery = Gallery(recipe, GALLERY_PICTURES, truth)
    with progress_bar("comparing") as tell:
        run = compare_instances(
            candidate,
            reference,
            pictures,
            scorer,
            versions=installed_versions(),
            progress=lambda done, total, name: tell(done, total),
            seen=gallery,
            watch=watching,
        )
    found = instance_table(columns, watching, run) if columns and watching else None
    return run, gallery.items, found


def _truth(
    images: str | Path, labels: str | Path | None, coco: str | Path | None, recipe: InstanceRecipe
) -> InstanceTruth:
    if coco is not None:
        return read_coco(coco, images, recipe)
    return read_cityscapes(labels or "", images, recipe)


def _reference(
    bundle: Bundle, weights: str | Path | None
) -> Callable[[dict[str, Array], int], PictureReference]:
    from pointrend_deploy.model.network_input import canvas_input
    from pointrend_deploy.parity.instance.reference import TorchPicture

    runner = TorchRunner(bundle, weights)

    def of(batch: dict[str, Array], row: int) -> PictureReference:
        height, width = (int(value) for value in batch["extent"][row])
        x = canvas_input(bundle.manifest, batch)
        return TorchPicture(runner.model, x[row : row + 1], (height, width))

    return of
