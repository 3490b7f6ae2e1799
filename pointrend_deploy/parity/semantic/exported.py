"""The exported semantic graph compared with the reference on the same input, stage by stage."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from pointrend_deploy.model.network_input import canvas_input
from pointrend_deploy.model.semantic.model import SemanticModel
from pointrend_deploy.parity.exported import VerificationBatch, export_run, run_with_stages
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.semantic.verify import verify_stages
from pointrend_deploy.progress import Progress
from pointrend_deploy.recipe.semantic import Recipe

Array = NDArray[Any]


def unread_stages(recipe: Recipe, padded_hw: tuple[int, int]) -> set[str]:
    """Name the stages that no later stage reads; a graph that gives only labels lacks them.

    These are the pyramid levels that no head reads (p6 of a semantic model), and the steps before
    a step that recomputes every cell.

    Args:
        recipe: of the model.
        padded_hw: height and width of the network input in pixels.
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
    graph: onnx.ModelProto, model: SemanticModel, batch: VerificationBatch, progress: Progress
) -> Run:
    """Run a graph in ONNX Runtime and the reference in PyTorch, and compare their stages.

    The graph that runs is the exported one, with its inner stages as outputs besides.

    Args:
        graph: the exported graph; not changed.
        model: the reference.
        batch: the pictures.
        progress: shows each step.

    Returns:
        The run for parity.json, in which everything passed.

    Raises:
        ParityError: the two differ; it names the first stage that does.
    """
    started, manifest = time.monotonic(), batch.manifest
    inputs = batch.inputs()
    with progress.step("PyTorch reference"), torch.inference_mode():
        stages = model.canvas_stages(canvas_input(manifest, inputs))
        reference = {name: value.numpy() for name, value in stages.items()}
        reference["labels"] = reference["logits"].argmax(axis=1).astype(np.uint8)
        del stages
    with progress.step("ONNX Runtime"):
        candidate = _with_whole_grids(run_with_stages(graph, inputs, reference), reference)
    with progress.step("comparing the stages"):
        areas = batch.filled([picture.fitted_hw for picture in batch.pictures])
        unread = unread_stages(model.recipe, manifest.canvas.padded_hw)
        result = verify_stages(reference, candidate, model.recipe, areas, not_computed=unread)
    return export_run(result, batch, started)


def _with_whole_grids(candidate: dict[str, Array], reference: dict[str, Array]) -> dict[str, Array]:
    """Add the indices of steps that recompute every cell, in the order of their point logits.

    Such a step selects nothing, so a graph that gives only labels has no indices for it.
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
