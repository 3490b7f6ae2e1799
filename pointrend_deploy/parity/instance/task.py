"""How instance bundles are compared; see :class:`pointrend_deploy.parity.task.ParityTask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.parity.columns import Columns
from pointrend_deploy.parity.comparison import Candidate, CompareOptions, Progress
from pointrend_deploy.parity.instance.columns import (
    InstanceColumns,
    instance_columns,
    instance_table,
)
from pointrend_deploy.parity.instance.compare import Reference, compare_instances
from pointrend_deploy.parity.instance.picture import Compared, ToCompare
from pointrend_deploy.parity.instance.verify import PictureReference
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.truth.annotations import InstanceTruth, need_evaluator
from pointrend_deploy.truth.cityscapes import read_cityscapes
from pointrend_deploy.truth.coco import read_coco
from pointrend_deploy.truth.label_maps import pairs

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class InstancePictures:
    """The pictures to compare, and what scores every side against their truth, if there is one."""

    pictures: tuple[ToCompare, ...]
    scorer: Scorer | None = None


class InstanceParity:
    """Compares detections and masks, with COCO annotations or Cityscapes instances as the truth."""

    def open_truth(
        self, bundle: Bundle, images: str | Path, options: CompareOptions
    ) -> InstancePictures:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        recipe, _ = bundle.manifest.instances
        truth = _truth(images, options, recipe)
        if truth is None:
            return InstancePictures(
                tuple(ToCompare(each.name, each.picture) for each in pairs(images))
            )
        return InstancePictures(annotated(truth), Scorer(truth, recipe))

    def open_reference(self, bundle: Bundle, weights: str | Path | None) -> Reference:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        from pointrend_deploy.model.network_input import canvas_input
        from pointrend_deploy.parity.instance.reference import TorchPicture
        from pointrend_deploy.run.backends.pytorch import TorchRunner

        runner = TorchRunner(bundle, weights)

        def of(batch: dict[str, Array], row: int) -> PictureReference:
            height, width = (int(value) for value in batch["extent"][row])
            x = canvas_input(bundle.manifest, batch)
            return TorchPicture(runner.model, x[row : row + 1], (height, width))

        return of

    def open_counting(self, columns: Columns, given: InstancePictures) -> InstanceColumns:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        return instance_columns(columns, given.scorer)

    def compare(
        self,
        candidate: Candidate,
        reference: Reference,
        given: InstancePictures,
        seen: Callable[[Compared], None],
        counting: InstanceColumns | None,
        versions: Mapping[str, str],
        progress: Progress,
    ) -> Run:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        run = compare_instances(
            candidate, reference, given.pictures, given.scorer, versions, progress, seen, counting
        )
        notes = () if given.scorer is None else given.scorer.truth.notes
        return msgspec.structs.replace(run, truth_notes=notes)

    def table(self, columns: Columns, counting: InstanceColumns, run: Run) -> PrecisionTable:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        return instance_table(columns, counting, run)


def annotated(truth: InstanceTruth) -> tuple[ToCompare, ...]:
    """Return the pictures of a truth, each with its objects."""
    objects = truth.objects_by_picture()
    return tuple(
        ToCompare(each.name, each.path, each.image_id, objects[each.image_id])
        for each in truth.pictures
    )


def _truth(
    images: str | Path, options: CompareOptions, recipe: InstanceRecipe
) -> InstanceTruth | None:
    if options.coco is None and options.labels is None:
        return None
    need_evaluator()
    if options.coco is not None:
        return read_coco(options.coco, images, recipe)
    return read_cityscapes(options.labels or "", images, recipe)
