"""The instance model as a whole: stages, sizes, no detections, other heads, float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance import model as instance
from pointrend_deploy.model.instance.model import output_stages
from pointrend_deploy.model.network_input import network_input
from pointrend_deploy.model.semantic.model import SemanticModel
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.semantic import load_recipe
from tests.fixtures.tiny_instance import POINTREND, STANDARD, changed, model, picture

LEVELS = ["p2", "p3", "p4", "p5"]
BOXES = ["proposals", "proposal_logits", "boxes", "scores", "classes"]
STEPS = [f"step{t}.{what}" for t in (1, 2, 3) for what in ("indices", "point_logits")]
OUTPUT = ["output_boxes", "output_scores", "output_classes", "masks"]


@pytest.mark.parametrize("recipe", [POINTREND, STANDARD], ids=["pointrend", "standard"])
def test_stages(recipe: InstanceRecipe) -> None:
    made = model(recipe)
    stages = made.stages(picture())
    pointrend = recipe is POINTREND
    masks = ["coarse", "step0.point_logits", *STEPS] if pointrend else []
    assert list(stages) == LEVELS + BOXES + masks + ["mask_logits"] + OUTPUT
    r, side = len(stages["boxes"]), recipe.mask_side
    assert 2 <= r <= 20
    assert stages["p2"].shape == (1, 8, 24, 32)
    assert stages["proposals"].shape == (len(stages["proposal_logits"]), 4)
    assert stages["boxes"].shape == (r, 4)
    assert stages["scores"].shape == stages["classes"].shape == (r,)
    assert (stages["scores"] > 0.05).all() and (stages["scores"].diff() <= 0).all()
    assert stages["classes"].dtype == torch.int64
    assert stages["mask_logits"].shape == (r, 1, side, side)
    kept = len(stages["output_boxes"])
    assert stages["masks"].shape == (kept, 90, 120)
    assert stages["masks"].dtype == torch.bool and stages["masks"].any()
    if pointrend:
        assert side == 224
        assert stages["coarse"].shape == (r, 3, 7, 7)
        assert stages["step0.point_logits"].shape == (r, 1, 784)
        assert stages["step3.indices"].shape == (r, 784)
        assert stages["step3.point_logits"].shape == (r, 1, 784)
        at_points = stages["mask_logits"].flatten(2).gather(2, stages["step3.indices"][:, None])
        assert torch.equal(at_points, stages["step3.point_logits"])


def test_boxes_stay_inside_the_picture_not_its_padding() -> None:
    stages = model(POINTREND).stages(picture(70, 100))
    assert stages["p2"].shape[2:] == (24, 32)
    for name in ("proposals", "boxes"):
        assert stages[name].amin() >= 0
        assert (stages[name].amax(0) <= torch.tensor([100.0, 70, 100, 70])).all()


def test_masks_at_another_size_are_the_same_boxes_scaled() -> None:
    made = model(POINTREND)
    here, there = made.stages(picture()), made.stages(picture(), (180, 60))
    assert there["masks"].shape[1:] == (180, 60)
    factors = torch.tensor([0.5, 2, 0.5, 2])
    torch.testing.assert_close(there["output_boxes"], here["output_boxes"] * factors)
    assert torch.equal(there["mask_logits"], here["mask_logits"])


@pytest.mark.parametrize("recipe", [POINTREND, STANDARD], ids=["pointrend", "standard"])
def test_no_detection_and_no_proposal(recipe: InstanceRecipe) -> None:
    made = model(recipe)
    made.roi_heads.box_predictor.cls_score.bias[-1] = 1e6
    stages = made.stages(picture())
    assert stages["boxes"].shape == (0, 4) and stages["masks"].shape == (0, 90, 120)
    assert stages["mask_logits"].shape == (0, 1, recipe.mask_side, recipe.mask_side)
    made.proposal_generator.rpn_head.objectness_logits.bias.fill_(torch.nan)
    stages = made.stages(picture())
    assert stages["proposals"].shape == (0, 4)
    assert stages["boxes"].shape == (0, 4) and stages["masks"].shape == (0, 90, 120)


def test_float64() -> None:
    made = model(POINTREND)
    single = made.stages(picture())
    double = made.double().stages(picture())
    floats = [v for v in double.values() if v.is_floating_point()]
    assert {v.dtype for v in floats} == {torch.float64}
    assert torch.equal(single["classes"], double["classes"])
    torch.testing.assert_close(single["boxes"].double(), double["boxes"], atol=1e-2, rtol=0)
    assert (single["masks"] != double["masks"]).float().mean() < 1e-3


def test_how_many_rois_are_done_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model(POINTREND).double()
    stages = made.stages(picture())
    monkeypatch.setattr(instance, "ROIS_AT_ONCE", 3)
    again = made.stages(picture())
    assert len(stages["boxes"]) > 3
    for name in ("coarse", "step1.indices", "mask_logits"):
        torch.testing.assert_close(stages[name], again[name], atol=1e-12, rtol=0)


@pytest.mark.parametrize("recipe", [POINTREND, STANDARD], ids=["pointrend", "standard"])
def test_class_agnostic_heads(recipe: InstanceRecipe) -> None:
    recipe = changed(recipe, "box_head", class_agnostic=True)
    table = "point_head" if recipe.point_head else "mask_head"
    recipe = changed(recipe, table, class_agnostic=True)
    made = model(recipe)
    assert made.roi_heads.box_predictor.bbox_pred.out_features == 4
    stages = made.stages(picture())
    r = len(stages["boxes"])
    assert r >= 2
    assert stages["mask_logits"].shape == (r, 1, recipe.mask_side, recipe.mask_side)
    if recipe.point_head:
        assert stages["coarse"].shape == (r, 3, 7, 7)
        assert made.point_head is not None
        assert made.point_head.predictor.out_channels == 1
    with torch.no_grad():
        other = made.mask_stages(stages, stages["boxes"], (stages["classes"] + 1) % 3)
    assert torch.equal(other["mask_logits"], stages["mask_logits"])


def test_masks_depend_on_the_class_where_the_head_is_not_agnostic() -> None:
    made = model(POINTREND)
    stages = made.stages(picture())
    with torch.no_grad():
        other = made.mask_stages(stages, stages["boxes"], (stages["classes"] + 1) % 3)
    assert not torch.equal(other["mask_logits"], stages["mask_logits"])


def test_several_features_at_points_and_for_the_coarse_head() -> None:
    recipe = changed(POINTREND, "point_head", in_features=("p2", "p3"))
    recipe = changed(recipe, "mask_head", in_features=("p2", "p4"))
    made = model(recipe)
    assert "roi_heads.mask_head.coarse_head.reduce_channel_dim_conv.weight" in made.state_dict()
    stages = made.stages(picture())
    assert stages["mask_logits"].shape[2:] == (224, 224)


def test_empty_boxes_are_dropped_from_the_output_only() -> None:
    boxes = torch.tensor([[2.0, 3, 8, 9], [5.0, 5, 5, 9], [1.0, 1, 4, 4]])
    stages = {
        "boxes": boxes,
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "classes": torch.tensor([2, 1, 0]),
        "mask_logits": torch.full((3, 1, 28, 28), 5.0),
    }
    found = output_stages(stages, (10, 10), (20, 20))
    assert found["output_classes"].tolist() == [2, 0]
    assert found["output_boxes"].tolist() == [[4, 6, 16, 18], [2, 2, 8, 8]]
    assert found["masks"].sum(dim=(1, 2)).tolist() == [144, 36]


def test_a_picture_smaller_than_any_anchor() -> None:
    stages = model(POINTREND).stages(picture(3, 2))
    assert stages["masks"].shape[1:] == (3, 2)


def test_what_it_refuses() -> None:
    made = model(STANDARD)
    x = network_input(picture(), STANDARD.input)
    with pytest.raises(DeployError, match="one picture at a time"):
        made.canvas_stages(x.repeat(2, 1, 1, 1))
    with pytest.raises(DeployError, match="does not lie in"):
        made.canvas_stages(x, (97, 120))
    with pytest.raises(DeployError, match="out_hw"):
        made.stages(picture(), (0, 10))
    with pytest.raises(DeployError, match="H x W x 3 uint8"):
        made.stages(picture().astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(DeployError, match=r"not a str\nhint: of a file, np\.array"):
        made.stages("a.jpg")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a.jpg", "not str"),
        (np.zeros((64, 64, 3), np.uint8), "not ndarray"),
        (torch.zeros(3, 64, 64), "not torch.float32 [3, 64, 64]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "not torch.uint8 [1, 3, 64, 64]"),
    ],
)
def test_a_model_is_called_with_its_network_input(given: object, said: str) -> None:
    for built in (model(STANDARD), SemanticModel(load_recipe("demo_semantic"))):
        with pytest.raises(DeployError) as caught:
            built(given)
        assert caught.value.message.endswith(said)
        assert "model.stages(picture)" in caught.value.hint
