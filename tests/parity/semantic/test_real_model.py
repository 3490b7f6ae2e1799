"""The gates on a real model: float32 against float64 passes with room, real mistakes do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pointrend_deploy.parity.semantic.verify import verify_stages
from pointrend_deploy.recipe.semantic import Recipe, load_recipe
from tests.repository import ROOT

torch = pytest.importorskip("torch")

RECIPE = ROOT / "export" / "demo_semantic.toml"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(RECIPE)


@pytest.fixture(scope="module")
def picture() -> Any:
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.standard_normal((1, 3, 8, 12)), np.ones((1, 1, 16, 16)))
    return torch.from_numpy(blocks + 0.2 * rng.standard_normal(blocks.shape))


@pytest.fixture(scope="module")
def model(recipe: Recipe) -> Any:
    from pointrend_deploy.model.semantic.model import build_model

    torch.manual_seed(0)
    built = build_model(recipe).double().requires_grad_(False)
    # fresh weights give logits near 0; a trained model's reach well beyond 1
    built.coarse_head.predictor.weight.mul_(40)
    built.point_head.predictor.weight.mul_(4000)
    return built


def stages(model: Any, x: Any, dtype: Any) -> dict[str, np.ndarray]:
    with torch.no_grad():
        found = model.to(dtype).canvas_stages(x.to(dtype))
    return {
        name: value.numpy().astype(np.float32) if value.is_floating_point() else value.numpy()
        for name, value in found.items()
    }


def test_float32_against_float64_passes(model: Any, picture: Any, recipe: Recipe) -> None:
    result = verify_stages(
        stages(model, picture, torch.float64), stages(model, picture, torch.float32), recipe
    )
    assert result, [(row.name, row.problem) for row in result.stages if not row]
    rows = [row for row in result.stages if row.kind == "tensor"]
    assert max(row.rms_reference or 0 for row in rows if "logits" in row.name) > 1
    # a gate nothing can fail is no gate: rounding takes up a visible share of some limit
    assert max((row.max_abs or 0) / (row.limit or 1) for row in rows) > 1e-4


def test_channels_in_the_wrong_order_are_caught(model: Any, picture: Any, recipe: Recipe) -> None:
    wrong = stages(model, picture.flip(1), torch.float32)
    result = verify_stages(stages(model, picture, torch.float32), wrong, recipe)
    assert result.first_divergent == "p2"
    assert not verify_stages(
        stages(model, picture, torch.float32), {"labels": wrong["logits"].argmax(1)}, recipe
    )


def replace_sampler(monkeypatch: pytest.MonkeyPatch, sampler: Callable[..., Any]) -> None:
    """Let ``grid_sample`` call ``sampler(grid_sample, features, grid, options)`` instead."""
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr(
        torch.nn.functional,
        "grid_sample",
        lambda features, grid, **options: sampler(sample, features, grid, options),
    )


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"align_corners": True}, "step0.point_logits"),
        ({"mode": "nearest"}, "step0.point_logits"),
        ({"padding_mode": "border"}, "step0.point_logits"),
    ],
)
def test_another_sampler_is_caught(
    model: Any,
    picture: Any,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    stage: str,
) -> None:
    expected = stages(model, picture, torch.float32)
    replace_sampler(
        monkeypatch,
        lambda sample, features, grid, options: sample(features, grid, **{**options, **change}),
    )
    result = verify_stages(expected, stages(model, picture, torch.float32), recipe)
    assert result.first_divergent == stage


def test_half_precision_coordinates_are_caught(
    model: Any, picture: Any, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stages(model, picture, torch.float32)
    replace_sampler(
        monkeypatch,
        lambda sample, features, grid, options: sample(features, grid.half().float(), **options),
    )
    result = verify_stages(expected, stages(model, picture, torch.float32), recipe)
    assert not result
    assert str(result.first_divergent).endswith(".point_logits")
