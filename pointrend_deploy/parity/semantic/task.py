"""How semantic bundles are compared; see :class:`pointrend_deploy.parity.task.ParityTask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import UsageError
from pointrend_deploy.parity.columns import Columns
from pointrend_deploy.parity.comparison import Candidate, CompareOptions, Progress
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.semantic.columns import LabelColumns, label_columns, label_table
from pointrend_deploy.parity.semantic.compare import ComparedLabels, Reference, compare
from pointrend_deploy.truth.label_maps import Pair, pairs


class SemanticParity:
    """Compares label maps, with label maps as the truth."""

    def open_truth(
        self, bundle: Bundle, images: str | Path, options: CompareOptions
    ) -> Sequence[Pair]:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        if options.coco is not None:
            raise UsageError(
                f"{bundle.manifest.name} is a semantic bundle; --coco is for instance bundles",
                "give label maps with --labels",
            )
        return pairs(images, options.labels)

    def open_reference(self, bundle: Bundle, weights: str | Path | None) -> Reference:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        from pointrend_deploy.run.backends.pytorch import TorchRunner  # needs PyTorch

        return TorchRunner(bundle, weights)

    def open_counting(self, columns: Columns, given: Sequence[Pair]) -> LabelColumns:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        return label_columns(columns)

    def compare(
        self,
        candidate: Candidate,
        reference: Reference,
        given: Sequence[Pair],
        seen: Callable[[ComparedLabels], None],
        counting: LabelColumns | None,
        versions: Mapping[str, str],
        progress: Progress,
    ) -> Run:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        return compare(candidate, reference, given, versions, progress, seen, counting)

    def table(self, columns: Columns, counting: LabelColumns, run: Run) -> PrecisionTable:
        """See :class:`~pointrend_deploy.parity.task.ParityTask`."""
        return label_table(columns, counting, run)
