"""The shipped instance model keeps its promises: sizes, one set of boxes, measurable figures."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from pointrend_deploy.checkpoint.read import read_checkpoint
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from scripts.demo_training import instance_shipped
from scripts.demo_training.instance_coco import average_precision, detections
from scripts.demo_training.instance_scene import THINGS
from scripts.demo_training.instance_shipped import (
    INSTANCE,
    RECIPE,
    STANDARD_RECIPE,
    load_shipped,
    measure,
    read_truth,
)
from scripts.demo_training.shipped import DEMO, as_json

SAME = 0.005
"""Figures of one set of weights on two machines: a box at a threshold may come or go."""
KINDS = ("box", "mask", "boundary", "boundary_2px")
FIRST = 8
"""Scenes of a quick look."""


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEMO / "instance_results.json").read_text())
    return found


def part_of(truth: dict[str, Any], scenes: int) -> dict[str, Any]:
    """The first scenes of a data set."""
    return {
        "images": truth["images"][:scenes],
        "annotations": [row for row in truth["annotations"] if row["image_id"] <= scenes],
        "categories": truth["categories"],
    }


def test_weights_and_scenes_are_small() -> None:
    for recipe in (RECIPE, STANDARD_RECIPE):
        assert (DEMO / f"{recipe.stem}.safetensors").stat().st_size <= 8_000_000
    stored = [DEMO / "noiseless" / "instance", INSTANCE / "annotations.json"]
    files = [p for place in stored for p in (place, *place.rglob("*")) if p.is_file()]
    assert sum(path.stat().st_size for path in files) <= 3_000_000


def test_the_two_models_differ_in_the_mask_head_alone() -> None:
    pointrend, standard = (
        read_checkpoint(DEMO / f"{recipe.stem}.safetensors") for recipe in (RECIPE, STANDARD_RECIPE)
    )
    prefix = "roi_heads.mask_head."
    trunk = {name for name in pointrend if not name.startswith(prefix)}
    assert trunk == {name for name in standard if not name.startswith(prefix)}
    assert all(torch.equal(pointrend[name], standard[name]) for name in trunk)
    ours, theirs = load_instance_recipe(RECIPE), load_instance_recipe(STANDARD_RECIPE)
    assert (ours.mask_side, theirs.mask_side) == (224, 28)
    for part in ("input", "classes", "backbone", "fpn", "rpn", "box_head"):
        assert getattr(ours, part) == getattr(theirs, part)
    assert ours.classes.names == THINGS


def test_the_annotations_are_of_the_shipped_scenes() -> None:
    truth, pictures = read_truth()
    assert len(pictures) >= 24
    for image, picture in zip(truth["images"], pictures, strict=True):
        assert picture.shape == (image["height"], image["width"], 3)
    assert {row["image_id"] for row in truth["annotations"]} == set(range(1, len(pictures) + 1))
    listed = {image["file_name"] for image in truth["images"]}
    assert listed == {f"scenes/{path.name}" for path in (INSTANCE / "scenes").iterdir()}


def test_the_kept_figures_show_what_pointrend_is_for(kept: dict[str, Any]) -> None:
    rows = kept["rows"]
    assert rows["pointrend"]["box"] == rows["standard"]["box"] >= 0.5
    assert rows["pointrend"]["mask"] >= rows["standard"]["mask"]
    assert rows["pointrend"]["boundary"] > rows["standard"]["boundary"]
    assert rows["pointrend"]["boundary_2px"] > rows["standard"]["boundary_2px"]


def test_the_readme_states_the_kept_figures(kept: dict[str, Any]) -> None:
    text = (DEMO / "README.md").read_text()
    for row in kept["rows"].values():
        assert "| " + " | ".join(f"{row[kind]:.3f}" for kind in KINDS) + " |" in text
    assert f"{kept['scenes']} held-out scenes" in text
    assert f"{kept['instances']} instances" in text


def test_a_few_scenes_reach_sane_figures_and_spoiled_weights_do_not() -> None:
    pytest.importorskip("faster_coco_eval")
    truth, pictures = read_truth()
    truth, pictures = part_of(truth, FIRST), pictures[:FIRST]
    model = load_shipped(RECIPE)
    right = average_precision(truth, detections(model, pictures))
    assert right["mask"] > 0.4
    assert right["boundary"] > 0.25
    assert model.point_head is not None
    model.point_head.predictor.weight.data.mul_(-1.0)
    spoiled = average_precision(truth, detections(model, pictures))
    assert spoiled["box"] == right["box"]
    assert spoiled["mask"] < 0.5 * right["mask"]
    moved = [picture.copy() for picture in pictures[1:] + pictures[:1]]
    assert average_precision(truth, detections(load_shipped(RECIPE), moved))["box"] < 0.1


def test_models_of_two_trainings_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, pictures = read_truth()
    part = part_of(truth, 2)
    monkeypatch.setattr(instance_shipped, "read_truth", lambda folder: (part, pictures[:2]))
    load = instance_shipped.load_shipped

    def changed(recipe: Any, folder: Any = DEMO) -> Any:
        model = load(recipe, folder)
        if recipe == STANDARD_RECIPE:
            model.roi_heads.box_predictor.bbox_pred.bias.data.add_(0.5)
        return model

    monkeypatch.setattr(instance_shipped, "load_shipped", changed)
    with pytest.raises(DeployError, match="do not give the same boxes"):
        measure()


@pytest.mark.slow
def test_the_kept_figures_are_what_the_weights_give(kept: dict[str, Any]) -> None:
    pytest.importorskip("faster_coco_eval")
    measured = json.loads(as_json(measure()))
    assert (measured["scenes"], measured["instances"]) == (kept["scenes"], kept["instances"])
    for name, row in kept["rows"].items():
        for kind in KINDS:
            assert measured["rows"][name][kind] == pytest.approx(row[kind], abs=SAME), name
