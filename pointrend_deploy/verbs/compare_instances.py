"""`compare` for instance bundles: where the truth comes from, and both sides opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.instance_recipe import InstanceRecipe
from pointrend_deploy.parity.annotations import InstanceTruth
from pointrend_deploy.parity.cityscapes_instances import read_cityscapes
from pointrend_deploy.parity.coco import read_coco
from pointrend_deploy.parity.dataset import pairs
from pointrend_deploy.parity.evaluator import Scorer, need_evaluator
from pointrend_deploy.parity.gallery import GalleryItem
from pointrend_deploy.parity.instance_compare import compare_instances
from pointrend_deploy.parity.instance_gallery import Gallery
from pointrend_deploy.parity.instance_picture import ToCompare
from pointrend_deploy.parity.instance_verify import PictureReference
from pointrend_deploy.parity.precision_results import PrecisionName, PrecisionTable
from pointrend_deploy.parity.results import Run
from pointrend_deploy.progress import Bars, progress_bar
from pointrend_deploy.run.runner import open_runner
from pointrend_deploy.verbs.compare_precisions import CandidateName, open_columns
from pointrend_deploy.verbs.compare_table import GALLERY_PICTURES
from pointrend_deploy.verbs.export import installed_versions
from pointrend_deploy.verbs.precision_instances import instance_columns, instance_table

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
    from pointrend_deploy.run.torch_instance_runner import TorchInstanceRunner
    from pointrend_deploy.run.torch_runner import network_input
    from pointrend_deploy.verbs.verification_reference import TorchPicture

    runner = TorchInstanceRunner(bundle, weights)

    def of(batch: dict[str, Array], row: int) -> PictureReference:
        height, width = (int(value) for value in batch["extent"][row])
        x = network_input(bundle.manifest, batch)
        return TorchPicture(runner.model, x[row : row + 1], (height, width))

    return of
