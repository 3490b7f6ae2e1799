"""A small real model, and bundles exported from it once a session."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pointrend_deploy.recipe.semantic import Recipe
from scripts.unpack_demo import unpack
from tests.fixtures.recipes import small_recipe

SIZE = (64, 96)
Exporter = Callable[..., Path]


def small_weights(recipe: Recipe, path: Path) -> Path:
    """Random weights with lively logits, so that labels vary over a picture."""
    from pointrend_deploy.model.semantic.model import build_model

    torch.manual_seed(5)
    model = build_model(recipe)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("predictor.weight"):
                value.mul_(6.0)
    tensors = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file({k: v.contiguous() for k, v in tensors.items()}, str(path))
    return path


def pytest_configure() -> None:
    """Make the demonstration files that are not stored, before any worker starts."""
    unpack()


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return small_recipe()


@pytest.fixture(scope="session")
def weights(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_weights(recipe, tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="session")
def exported(recipe: Recipe, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Export the small model with some options, once for each set of them. Not to be changed."""
    made: dict[tuple[tuple[str, object], ...], Path] = {}

    def export(**options: object) -> Path:
        from pointrend_deploy.verbs.export.export import export_bundle
        from pointrend_deploy.verbs.export.options import ExportOptions

        key = tuple(sorted(options.items()))
        if key not in made:
            out = tmp_path_factory.mktemp("bundles") / "bundle"
            chosen = ExportOptions(**{"size_hw": SIZE, **options})  # type: ignore[arg-type]
            export_bundle(recipe, weights, out, chosen)
            made[key] = out
        return made[key]

    return export


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures of different sizes."""
    from pointrend_deploy.pictures.generated import verification_picture

    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, (height, width) in enumerate(((64, 96), (90, 60), (33, 200))):
        Image.fromarray(verification_picture(height, width, index)).save(folder / f"{index}.png")
    return folder


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def without_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    """faster-coco-eval as if it were not installed."""
    honest = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "faster_coco_eval":
            raise ImportError("No module named 'faster_coco_eval'")
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
