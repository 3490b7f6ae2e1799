"""Bundles of models in their full size, without the time of verifying them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import ModelProto

from pointrend_deploy.bundle.folder import DETECTOR, MASKS, MODEL, WEIGHTS, sha256_of
from pointrend_deploy.bundle.manifest import (
    MANIFEST,
    SCHEMA,
    Canvas,
    InstanceExport,
    Manifest,
    Preprocess,
    WeightsRecord,
    encode_manifest,
)
from pointrend_deploy.graph.instance.export import export_instance_graphs
from pointrend_deploy.graph.instance.specs import InstanceGraphOptions
from pointrend_deploy.graph.options import GraphOptions
from pointrend_deploy.graph.semantic.export import export_graph
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.model.semantic.model import SemanticModel
from pointrend_deploy.recipe.read import AnyRecipe
from pointrend_deploy.verbs.export.manifest import tensor_specs

HW = tuple[int, int]


def semantic_bundle(model: SemanticModel, folder: Path, size_hw: HW) -> Path:
    """Export a semantic model; the empty folder becomes a bundle."""
    graph = export_graph(model, GraphOptions(padded_hw=size_hw))
    return _written(folder, model.recipe, size_hw, {MODEL: graph})


def instance_bundle(model: InstanceModel, folder: Path, size_hw: HW, **options: Any) -> Path:
    """Export an instance model; the empty folder becomes a bundle."""
    chosen = InstanceGraphOptions(padded_hw=size_hw, **options)
    graphs = export_instance_graphs(model, chosen)
    split = chosen.layout == "split"
    instance = InstanceExport(
        detections=chosen.detections,
        masks=chosen.masks,
        mask_side=model.recipe.mask_side,
        layout=chosen.layout,
        mask_graphs={"fp32": MASKS} if split else {},
        mask_inputs=tensor_specs(graphs["masks"].graph.input) if split else (),
        mask_outputs=tensor_specs(graphs["masks"].graph.output) if split else (),
    )
    files = {"model": MODEL, "detector": DETECTOR, "masks": MASKS}
    named = {files[name]: graph for name, graph in graphs.items()}
    return _written(folder, model.recipe, size_hw, named, instance)


def _written(
    folder: Path,
    recipe: AnyRecipe,
    size_hw: HW,
    graphs: dict[str, ModelProto],
    instance: InstanceExport | None = None,
) -> Path:
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph.SerializeToString())
    first = next(iter(graphs))
    manifest = Manifest(
        schema=SCHEMA,
        name=recipe.name,
        created_by="a test",
        recipe=recipe,
        canvas=Canvas(size_hw=size_hw, padded_hw=size_hw, batch=1),
        preprocess=Preprocess(
            location="outside",
            channel_order=recipe.input.channel_order,
            pixel_mean=recipe.input.pixel_mean,
            pixel_std=recipe.input.pixel_std,
        ),
        inputs=tensor_specs(graphs[first].graph.input),
        outputs=tensor_specs(graphs[first].graph.output),
        ops="plugin",
        opset=18,
        graphs={"fp32": first},
        weights=WeightsRecord(
            file=WEIGHTS, sha256="", included=False, source_sha256="", source_name="none"
        ),
        versions={},
        files={name: sha256_of(folder / name) for name in graphs},
        instance=instance,
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return folder
