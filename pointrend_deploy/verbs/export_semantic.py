"""A semantic model's part of an export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pointrend_deploy.bundle import MODEL
from pointrend_deploy.manifest import Manifest
from pointrend_deploy.progress import Progress
from pointrend_deploy.recipe import Recipe
from pointrend_deploy.run.preprocess import Fitted
from pointrend_deploy.verbs.export_manifest import GraphFacts, facts_of
from pointrend_deploy.verbs.export_options import ExportOptions, padded_size

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.parity.results import Run


class SemanticExport:
    """One graph that gives labels.

    Args:
        recipe: of the model.
        options: checked against it.
        weights: the checkpoint.

    Raises:
        DeployError: the checkpoint cannot be read or does not fit the recipe.
    """

    def __init__(self, recipe: Recipe, options: ExportOptions, weights: Path) -> None:
        from pointrend_deploy.model.architectures import load_model

        self._recipe, self._options = recipe, options
        self.model = load_model(recipe, weights)

    def trace(self) -> dict[str, ModelProto]:
        """The graph by its file's name."""
        from pointrend_deploy.graph.options import GraphOptions
        from pointrend_deploy.graph.trace import export_graph

        options = self._options
        graph_options = GraphOptions(
            padded_hw=padded_size(options.size_hw, self._recipe.input.size_divisibility),
            batch=options.batch,
            ops=options.ops,
            outputs=options.outputs or ("labels",),
            preprocess=options.preprocess,
        )
        return {MODEL: export_graph(self.model, graph_options)}

    def facts(self, graphs: dict[str, ModelProto]) -> GraphFacts:
        """What the manifest says of the graph."""
        return facts_of(graphs[MODEL], MODEL)

    def verify(
        self,
        graphs: dict[str, ModelProto],
        manifest: Manifest,
        pictures: list[Fitted],
        progress: Progress,
    ) -> Run:
        """Hold the graph against the reference. Raises ParityError where they differ."""
        from pointrend_deploy.verbs.verification import verify_graph

        return verify_graph(graphs[MODEL], self.model, manifest, pictures, progress)
