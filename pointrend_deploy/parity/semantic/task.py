"""How semantic bundles are compared; see :class:`pointrend_deploy.parity.task.ParityTask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import UsageError
from pointrend_deploy.parity.columns import Columns
from pointrend_deploy.parity.comparison import Candidate, CompareOptions, Progress
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.semantic.columns import LabelColumns, label_columns, label_table
from pointrend_deploy.parity.semantic.compare import ComparedLabels, Reference, compare
from pointrend_deploy.truth.label_maps import pairs
from pointrend_deploy.truth.label_survey import LabelledPictures, survey


class SemanticParity:
    """Compares label maps, with label maps as the truth."""

    def open_truth(
        self, bundle: Bundle, images: str | Path, options: CompareOptions
    ) -> LabelledPictures:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        if options.coco is not None:
            raise UsageError(
                f"{bundle.manifest.name} is a semantic bundle; --coco is for instance bundles",
                "give label maps with --labels",
            )
        return survey(pairs(images, options.labels), bundle.manifest.semantic)

    def open_reference(self, bundle: Bundle, weights: str | Path | None) -> Reference:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        from pointrend_deploy.run.backends.pytorch import TorchRunner  # needs PyTorch

        return TorchRunner(bundle, weights)

    def open_counting(self, columns: Columns, given: LabelledPictures) -> LabelColumns:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        return label_columns(columns)

    def compare(
        self,
        candidate: Candidate,
        reference: Reference,
        given: LabelledPictures,
        seen: Callable[[ComparedLabels], None],
        counting: LabelColumns | None,
        versions: Mapping[str, str],
        progress: Progress,
    ) -> Run:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        run = compare(candidate, reference, given.pairs, versions, progress, seen, counting)
        return msgspec.structs.replace(run, truth_notes=given.notes)

    def table(self, columns: Columns, counting: LabelColumns, run: Run) -> PrecisionTable:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        return label_table(columns, counting, run)
