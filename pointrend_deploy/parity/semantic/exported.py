"""The exported semantic graph beside the reference, on the same input, stage by stage."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.model.network_input import canvas_input
from pointrend_deploy.model.semantic.model import SemanticModel
from pointrend_deploy.parity.exported import export_run, run_with_stages
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.semantic.verify import verify_stages
from pointrend_deploy.pictures.canvas import Fitted, batch_of
from pointrend_deploy.progress import Progress
from pointrend_deploy.recipe.semantic import Recipe

Array = NDArray[Any]


def unread_stages(recipe: Recipe, padded_hw: tuple[int, int]) -> set[str]:
    """Stages that no later one reads, so that a graph that gives only labels lacks them.

    They are the pyramid levels of no head (p6 of a semantic model), and the steps before one that
    recomputes every cell.
    """
    levels = ["p" + name[3:] for name in recipe.fpn.in_features]
    if recipe.fpn.top_level:
        levels.append(f"p{int(levels[-1][1:]) + 1}")
    unread = set(levels) - {*recipe.coarse_head.in_features}
    spec = recipe.point_head
    if spec is None:
        return unread
    unread -= {*spec.in_features}
    cells = padded_hw[0] * padded_hw[1] // recipe.coarse_head.common_stride**2
    for step in range(1, spec.subdivision_steps):
        if spec.subdivision_points >= cells * 4 ** (step + 1):
            unread |= {f"step{step - 1}.{what}" for what in ("indices", "point_logits")}
    return unread


def verify_graph(
    graph: onnx.ModelProto,
    model: SemanticModel,
    manifest: Manifest,
    pictures: list[Fitted],
    progress: Progress,
) -> Run:
    """Run the graph in ONNX Runtime, the reference in PyTorch, and hold their stages side by side.

    The graph that runs is the one exported, with its inner stages marked as outputs besides.

    Args:
        graph: the exported graph; not changed.
        model: the reference.
        manifest: of the bundle to be.
        pictures: one batch on the canvas.
        progress: told of each step.

    Returns:
        The run for parity.json, in which everything passed.

    Raises:
        ParityError: naming the first stage that differs.
    """
    started = time.monotonic()
    inputs = batch_of(pictures, manifest)
    with progress.step("PyTorch reference"), torch.inference_mode():
        stages = model.canvas_stages(canvas_input(manifest, inputs))
        reference = {name: value.numpy() for name, value in stages.items()}
        reference["labels"] = reference["logits"].argmax(axis=1).astype(np.uint8)
        del stages
    with progress.step("ONNX Runtime"):
        candidate = _with_whole_grids(run_with_stages(graph, inputs, reference), reference)
    with progress.step("comparing the stages"):
        areas = [picture.fitted_hw for picture in pictures]
        areas += areas[-1:] * (manifest.canvas.batch - len(areas))
        unread = unread_stages(model.recipe, manifest.canvas.padded_hw)
        result = verify_stages(reference, candidate, model.recipe, areas, not_computed=unread)
    return export_run(result, manifest, len(pictures), started)


def _with_whole_grids(candidate: dict[str, Array], reference: dict[str, Array]) -> dict[str, Array]:
    """Add the indices of steps that recompute every cell, in the order their point logits have.

    Such a step selects nothing, so a graph that gives only labels holds no indices of it.
    """
    stages = dict(candidate)
    for name, values in candidate.items():
        if not name.endswith(".point_logits"):
            continue
        step = int(name.removeprefix("step").removesuffix(".point_logits"))
        n, cells = len(values), reference["coarse"][0, 0].size
        indices, k = f"step{step}.indices", values.shape[2]
        if indices not in stages and k == cells * 4 ** (step + 1):
            stages[indices] = np.broadcast_to(np.arange(k), (n, k))
    return stages
