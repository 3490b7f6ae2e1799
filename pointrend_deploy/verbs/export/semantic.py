"""The export of a semantic model: one graph that gives labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from pointrend_deploy.bundle.folder import MODEL
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import UsageError
from pointrend_deploy.graph.options import GraphOptions, Output
from pointrend_deploy.progress import Progress
from pointrend_deploy.recipe.semantic import Recipe
from pointrend_deploy.verbs.export.options import ExportOptions

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.model.semantic.model import SemanticModel
    from pointrend_deploy.parity.exported import VerificationBatch
    from pointrend_deploy.parity.record.runs import Run


class SemanticExport:
    """See :class:`~pointrend_deploy.verbs.export.task.ExportTask`."""

    own_options: ClassVar[tuple[str, ...]] = ("outputs",)

    def __init__(self, recipe: Recipe, options: ExportOptions) -> None:
        outputs = ("labels",) if options.outputs is None else options.outputs
        unknown = set(outputs) - set(get_args(Output))
        if unknown or "labels" not in outputs or len(set(outputs)) < len(outputs):
            raise UsageError(
                f"--outputs {','.join(outputs)} cannot be exported",
                "use labels, optionally followed by logits and stages: labels,logits",
            )
        self._recipe, self._options = recipe, options
        self._graph_options = GraphOptions(
            padded_hw=options.padded_hw(recipe),
            batch=options.batch,
            ops=options.ops,
            outputs=outputs,
            preprocess=options.preprocess,
        )

    def load(self, weights: Path) -> SemanticModel:
        """Read the checkpoint into a ``SemanticModel``."""
        from pointrend_deploy.model.semantic.model import load_model

        self._model = load_model(
            self._recipe,
            weights,
            weights_key=self._options.weights_key,
            ignore_extra=self._options.ignore_extra,
        )
        return self._model

    def trace(self) -> dict[str, ModelProto]:
        """Trace ``model.onnx``."""
        from pointrend_deploy.graph.semantic.export import export_graph

        return {MODEL: export_graph(self._model, self._graph_options)}

    def described(self, manifest: Manifest, graphs: dict[str, ModelProto]) -> Manifest:
        """Leave the manifest as it is."""
        return manifest

    def verify(
        self, graphs: dict[str, ModelProto], batch: VerificationBatch, progress: Progress
    ) -> Run:
        """Compare the labels and every stage before them."""
        from pointrend_deploy.parity.semantic.exported import verify_graph

        return verify_graph(graphs[MODEL], self._model, batch, progress)

    @staticmethod
    def summary_lines(manifest: Manifest) -> list[str]:
        """Add nothing."""
        return []

    @staticmethod
    def notes(manifest: Manifest) -> list[str]:
        """Add nothing: ONNX Runtime computes the same with custom nodes and without."""
        return []

    @staticmethod
    def agreement(run: Run) -> str:
        """Say on how many pixels the labels agree."""
        agreement = next((row.agreement for row in run.stages if row.name == "labels"), None)
        return f"labels agree on {agreement or 0.0:.4%} of the pixels"
