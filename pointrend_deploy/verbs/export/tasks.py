"""A semantic model's part of an export.

MERGED: An instance model's part of an export.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pointrend_deploy.bundle.folder import DETECTOR, MASKS, MODEL
from pointrend_deploy.bundle.manifest import InstanceExport, Manifest
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.progress import Progress
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.semantic import Recipe
from pointrend_deploy.verbs.export.manifest import GraphFacts, facts_of
from pointrend_deploy.verbs.export.options import ExportOptions, padded_size

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.graph.instance.specs import InstanceGraphOptions
    from pointrend_deploy.parity.record.runs import Run


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
        from pointrend_deploy.model.semantic.model import load_model

        self._recipe, self._options = recipe, options
        self.model = load_model(recipe, weights)

    def trace(self) -> dict[str, ModelProto]:
        """The graph by its file's name."""
        from pointrend_deploy.graph.options import GraphOptions
        from pointrend_deploy.graph.semantic.export import export_graph

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
        from pointrend_deploy.parity.semantic.exported import verify_graph

        return verify_graph(graphs[MODEL], self.model, manifest, pictures, progress)


FILES = {"model": MODEL, "detector": DETECTOR, "masks": MASKS}
"""File of each graph, by the name graph/instance_trace.py gives it."""


class InstanceModelExport:
    """One graph that gives detections and their masks, or a detector and a mask graph.

    Args:
        recipe: of the model.
        options: checked against it.
        weights: the checkpoint.

    Raises:
        DeployError: no graph can be made for these options, or the checkpoint cannot be read or
            does not fit the recipe.
    """

    def __init__(self, recipe: InstanceRecipe, options: ExportOptions, weights: Path) -> None:
        self._graph_options = _graph_options(recipe, options)
        self._graph_options.check(recipe)
        from pointrend_deploy.model.instance.model import load_instance_model

        box_head = msgspec.structs.replace(
            recipe.box_head, detections=self._graph_options.detections
        )
        self._recipe = msgspec.structs.replace(recipe, box_head=box_head)
        self.model = load_instance_model(self._recipe, weights)

    def trace(self) -> dict[str, ModelProto]:
        """The graphs by their files' names."""
        from pointrend_deploy.graph.instance.export import export_instance_graphs

        whole = msgspec.structs.replace(self._graph_options, stages=True)
        self._whole = export_instance_graphs(self.model, whole)
        return {FILES[name]: self._without_stages(name) for name in self._whole}

    def _without_stages(self, name: str) -> ModelProto:
        """The graph that is shipped: the one that is verified, less its further outputs."""
        from pointrend_deploy.graph.contract import check_contract
        from pointrend_deploy.graph.instance.specs import instance_expected
        from pointrend_deploy.graph.passes.tidy import tidy
        from pointrend_deploy.graph.slices import keep_outputs
        from pointrend_deploy.version import __version__

        promised = instance_expected(self._recipe, self._graph_options)[name]
        graph = keep_outputs(self._whole[name], list(promised.outputs))
        graph = tidy(graph, __version__)
        check_contract(graph, promised)
        return graph

    def facts(self, graphs: dict[str, ModelProto]) -> GraphFacts:
        """What the manifest says of the graphs."""
        from pointrend_deploy.verbs.export.manifest import tensor_specs

        split = self._graph_options.layout == "split"
        file = DETECTOR if split else MODEL
        masks = graphs[MASKS].graph if split else None
        instance = InstanceExport(
            detections=self._graph_options.detections,
            masks=self._graph_options.masks,
            mask_side=self._recipe.mask_side,
            layout=self._graph_options.layout,
            mask_graphs={"fp32": MASKS} if split else {},
            mask_inputs=tensor_specs(masks.input) if masks is not None else (),
            mask_outputs=tensor_specs(masks.output) if masks is not None else (),
        )
        return facts_of(graphs[file], file, instance)

    def verify(
        self,
        graphs: dict[str, ModelProto],
        manifest: Manifest,
        pictures: list[Fitted],
        progress: Progress,
    ) -> Run:
        """Hold the graphs against the reference. Raises ParityError where they differ."""
        from pointrend_deploy.parity.exported import check_loads
        from pointrend_deploy.parity.instance.exported import verify_instance_graphs

        for graph in graphs.values():
            check_loads(graph)
        return verify_instance_graphs(
            self._whole, self.model, manifest, self._graph_options, pictures, progress
        )


def _graph_options(recipe: InstanceRecipe, options: ExportOptions) -> InstanceGraphOptions:
    from pointrend_deploy.graph.instance.specs import InstanceGraphOptions

    return InstanceGraphOptions(
        padded_hw=padded_size(options.size_hw, recipe.input.size_divisibility),
        batch=options.batch,
        ops=options.ops,
        detections=options.detections or recipe.box_head.detections,
        masks=options.masks or "prob",
        layout=options.layout or "single",
        preprocess=options.preprocess,
    )
