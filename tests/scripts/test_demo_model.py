"""What demo/ ships keeps its promises: sizes, labels, and figures that can be measured again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.model.semantic.model import load_model
from pointrend_deploy.recipe.semantic import load_recipe
from scripts.demo_training.compose import CLASSES, Scene
from scripts.demo_training.evaluate import figures, scores
from scripts.demo_training.shipped import DEMO, RECIPE, ROOT, as_json, measure, read_scenes
from scripts.unpack_demo import DENSE, SCENES, STANDARD

SAME = 0.003
"""Figures of one set of weights on two machines: rounding turns a few hundred of 2.4 M labels."""


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEMO / "results.json").read_text())
    return found


def test_weights_and_folder_are_small() -> None:
    for name in ("demo_semantic", "demo_semantic_dense"):
        assert (DEMO / f"{name}.safetensors").stat().st_size <= 4_000_000
    made = {
        ROOT / STANDARD,
        ROOT / DENSE,
        *(p for f in SCENES.values() for p in (ROOT / f).iterdir()),
    }
    stored = {path for path in DEMO.rglob("*") if path.is_file()} - made
    assert sum(path.stat().st_size for path in stored) < 15_000_000


def test_scenes_have_exact_labels_in_the_recipes_colours() -> None:
    scenes = read_scenes()
    assert len(scenes) >= 24
    assert {scene.image.shape for scene in scenes} == {(256, 256, 3)}
    assert {scene.label.shape for scene in scenes} == {(256, 256)}
    assert np.unique([scene.label for scene in scenes]).tolist() == list(range(len(CLASSES)))
    colours = [v for colour in load_recipe(RECIPE).classes.colours for v in colour]
    with Image.open(DEMO / "labels" / "0000.png") as label:
        palette = label.getpalette()
    assert palette is not None
    assert palette[: len(colours)] == colours


def test_the_kept_figures_reach_the_targets(kept: dict[str, Any]) -> None:
    rows = kept["rows"]
    assert rows["pointrend"]["miou"] >= 0.69
    assert rows["pointrend"]["boundary_iou"] >= 0.28
    assert rows["pointrend"]["boundary_iou"] >= 2.0 * rows["coarse"]["boundary_iou"]
    assert set(rows) == {"coarse", "pointrend", "dense_stride4"}


def test_the_readme_states_the_kept_figures(kept: dict[str, Any]) -> None:
    text = (DEMO / "README.md").read_text()
    for row in kept["rows"].values():
        assert f"| {row['miou']:.3f} | {row['boundary_iou']:.3f} |" in text


@pytest.mark.slow
def test_the_kept_figures_are_what_the_weights_give(kept: dict[str, Any]) -> None:
    measured = json.loads(as_json(measure()))
    assert measured["scenes"] == kept["scenes"]
    for name, row in kept["rows"].items():
        for figure in ("miou", "boundary_iou"):
            assert measured["rows"][name][figure] == pytest.approx(row[figure], abs=SAME), name


def test_moved_labels_and_changed_weights_lower_the_figures() -> None:
    recipe = load_recipe(RECIPE)
    model = load_model(recipe, DEMO / "demo_semantic.safetensors")
    scenes = read_scenes()[:4]
    right = figures(scores(model, scenes)["final"])
    moved = [Scene(scene.image, np.roll(scene.label, 2, axis=0)) for scene in scenes]
    shifted = figures(scores(model, moved)["final"])
    assert shifted["boundary_iou"] < right["boundary_iou"] - 0.1
    assert model.point_head is not None
    model.point_head.predictor.weight.data.mul_(-1.0)
    spoiled = figures(scores(model, scenes)["final"])
    assert spoiled["miou"] < right["miou"] - 10 * SAME
    assert spoiled["boundary_iou"] < right["boundary_iou"] - 10 * SAME
