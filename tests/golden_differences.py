"""Our reference beside detectron2's: ``python -m tests.golden_differences`` prints a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from pointrend_deploy.model.pointrend import cell_centres, double, point_sample, uncertainty
from pointrend_deploy.model.semantic.model import SemanticModel, model_from_tensors
from pointrend_deploy.recipe.semantic import load_recipe
from tests import tolerances
from tests.goldens import weights as golden_weights
from tests.goldens.read import HERE, read_golden, read_input
from tests.repository import ROOT

EXPORT = ROOT / "export"

CASES = {
    "sem_128x192": ("pointrend_semantic_R101_cityscapes", "sem_128x192"),
    "sem_230x330": ("pointrend_semantic_R101_cityscapes", "sem_230x330"),
    "semantic_fpn_R50_sem_128x192": ("semantic_fpn_R50", "sem_128x192"),
}
RECIPES = {
    "pointrend_semantic_R101_cityscapes": "pointrend_semantic_fpn_r101_cityscapes.toml",
    "semantic_fpn_R50": "semantic_fpn_r50_coco_stuff.toml",
}


def synthetic_tensors(name: str) -> dict[str, torch.Tensor]:
    """The synthetic checkpoint of that name, under detectron2's parameter names."""
    keys = json.loads((HERE / "keys" / f"{name}.json").read_text())
    made = golden_weights.make(keys)
    return {key: torch.from_numpy(np.ascontiguousarray(made[key])) for key in keys}


@cache
def golden_model(name: str) -> SemanticModel:
    return model_from_tensors(load_recipe(EXPORT / RECIPES[name]), synthetic_tensors(name))


@torch.no_grad()
def differences(case: str) -> dict[str, tuple[float, tolerances.Tolerance]]:
    """Largest difference per quantity of one golden, with its tolerance."""
    weights, picture = CASES[case]
    golden = read_golden(case)
    image, out_hw = read_input(picture)
    model = golden_model(weights)
    stages = model.stages(image, out_hw)
    found: dict[str, tuple[float, tolerances.Tolerance]] = {}
    for level in range(2, 7):
        c, y, x = (int(v) for v in golden[f"p{level}_stride"])
        ours = stages[f"p{level}"].numpy()
        assert list(ours.shape) == golden[f"p{level}_shape"].tolist()
        off = np.abs(ours[:, ::c, ::y, ::x] - golden[f"p{level}_s"]).max()
        found[f"p{level}"] = (float(off), tolerances.FEATURES)
    coarse = stages["coarse"]
    found["coarse"] = (_off(coarse[0], golden["coarse"]), tolerances.COARSE)
    if model.point_head is not None:
        found.update(_steps(model, stages, golden))
    if "final_argmax" in golden:
        labels = stages["logits"][0].argmax(0).numpy()
        found["final labels"] = (
            float((labels != golden["final_argmax"]).mean()),
            tolerances.LABELS,
        )
    if "out_argmax" in golden:
        wrong = stages["labels"][0].numpy() != golden["out_argmax"]
        found["output labels"] = (float(wrong.mean()), tolerances.LABELS)
    return found


def _off(ours: torch.Tensor, theirs: Any) -> float:
    return float(np.abs(ours.numpy() - theirs).max())


def _steps(model: SemanticModel, stages: dict[str, torch.Tensor], golden: Any) -> dict[str, Any]:
    found = {}
    coarse, logits = stages["coarse"], stages["coarse"]
    spec, head = model.recipe.point_head, model.point_head
    assert spec is not None and head is not None
    for step in range(spec.subdivision_steps):
        logits = double(logits)
        n, c, h, w = logits.shape
        theirs = torch.from_numpy(golden[f"step{step}_idx_sorted"].astype(np.int64))[None]
        points = cell_centres(theirs, h, w, torch.float32)
        fine = point_sample(stages["p2"], points)
        at_golden = head(fine, point_sample(coarse, points))
        wanted = golden[f"step{step}_point_logits"]
        found[f"step {step} fine"] = (
            _off(fine[0, ::8, ::64], golden[f"step{step}_fine_sub"]),
            tolerances.FINE,
        )
        found[f"step {step} point logits"] = (_off(at_golden[0], wanted), tolerances.POINT_LOGITS)
        ours = stages[f"step{step}.indices"]
        strays = set(ours[0].tolist()) ^ set(theirs[0].tolist())
        found[f"step {step} strays"] = (
            len(strays) / 2 / theirs.shape[1],
            tolerances.STRAY_POINTS,
        )
        at_strays = uncertainty(logits).flatten()[sorted(strays)]
        kth = torch.from_numpy(golden[f"step{step}_kth_next"])
        apart = (at_strays[:, None] - kth[None]).abs().amin(1)
        found[f"step {step} strays' uncertainty"] = (
            float(apart.max()) if len(strays) else 0.0,
            tolerances.STRAY_UNCERTAINTY,
        )
        where = ours.unsqueeze(1).expand(-1, c, -1)
        values = stages[f"step{step}.point_logits"]
        logits = logits.reshape(n, c, h * w).scatter(2, where, values).view(n, c, h, w)
    return found


def print_differences(
    cases: Iterable[str],
    differences: Callable[[str], Mapping[str, tuple[float, tolerances.Tolerance]]],
) -> None:
    """Print every difference of some goldens beside detectron2's own."""
    print(f"{'golden':30} {'quantity':32} {'ours':>10} {'its own':>10} {'accept':>10}")
    for case in cases:
        for quantity, (value, (own, accept, _unit)) in differences(case).items():
            print(f"{case:30} {quantity:32} {value:10.2e} {own:10.2e} {accept:10.2e}")


if __name__ == "__main__":
    print_differences(CASES, differences)
