"""A bundle of a model in its full size with untrained weights, without the time of verifying it."""

from __future__ import annotations

from pathlib import Path

import torch

from pointrend_deploy.bundle import MODEL, WEIGHTS, sha256_of
from pointrend_deploy.graph.options import GraphOptions
from pointrend_deploy.graph.trace import export_graph
from pointrend_deploy.manifest import (
    MANIFEST,
    SCHEMA,
    Canvas,
    Manifest,
    Preprocess,
    WeightsRecord,
    encode_manifest,
)
from pointrend_deploy.model.architectures import build_model
from pointrend_deploy.recipe import Recipe
from pointrend_deploy.verbs.verification import tensor_specs


def untrained(recipe: Recipe, folder: Path, size_hw: tuple[int, int]) -> Path:
    """Export a recipe as it initialises itself; the folder becomes a bundle."""
    torch.manual_seed(0)
    graph = export_graph(build_model(recipe).eval(), GraphOptions(padded_hw=size_hw))
    (folder / MODEL).write_bytes(graph.SerializeToString())
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
        inputs=tensor_specs(graph.graph.input),
        outputs=tensor_specs(graph.graph.output),
        ops="plugin",
        opset=18,
        graphs={"fp32": MODEL},
        weights=WeightsRecord(
            file=WEIGHTS, sha256="", included=False, source_sha256="", source_name="none"
        ),
        versions={},
        files={MODEL: sha256_of(folder / MODEL)},
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return folder
