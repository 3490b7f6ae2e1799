"""Checkpoints of instance models: what fits, and what is said about what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.model import instance_model_from_tensors, load_instance_model
from pointrend_deploy.model.semantic.model import model_from_tensors
from pointrend_deploy.recipe.instance import InstanceRecipe, cell_anchors
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from pointrend_deploy.recipe.semantic import load_recipe
from tests.fixtures.tiny_instance import POINTREND, STANDARD, changed, model
from tests.golden_differences import EXPORT
from tests.goldens.read import HERE

R50 = load_instance_recipe(EXPORT / "pointrend_mask_rcnn_r50_fpn_coco.toml")


def tiny(recipe: InstanceRecipe = POINTREND) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model(recipe).state_dict().items()}


def named(name: str) -> dict[str, Tensor]:
    """Zeros of the golden's shapes that take no memory."""
    keys = json.loads((HERE / "keys" / f"{name}.json").read_text())
    return {key: torch.zeros(()).expand(shape) for key, (shape, _) in keys.items()}


def test_what_fits_is_loaded(tmp_path: Path) -> None:
    tensors = tiny()
    torch.save({"model": tensors}, tmp_path / "model.pth")
    loaded = load_instance_model(POINTREND, tmp_path / "model.pth").state_dict()
    assert all(torch.equal(value, tensors[name]) for name, value in loaded.items())


def test_old_names_anchors_and_pixel_means_are_taken_care_of() -> None:
    old = {}
    for name, value in tiny().items():
        for new_start, old_start in (
            ("roi_heads.mask_head.coarse_head.fc", "roi_heads.mask_coarse_head.coarse_mask_fc"),
            ("roi_heads.mask_head.coarse_head.", "roi_heads.mask_coarse_head."),
            ("roi_heads.mask_head.point_head.", "roi_heads.mask_point_head."),
        ):
            if name.startswith(new_start):
                name = old_start + name[len(new_start) :]
        old[name] = value
    for level, (sizes, ratios) in enumerate(POINTREND.rpn.anchors):
        anchors = torch.tensor(cell_anchors(sizes, ratios))
        old[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = anchors
    old["pixel_mean"] = torch.full((3, 1, 1), 120.0)
    loaded = instance_model_from_tensors(POINTREND, old).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tiny().items())
    old["proposal_generator.anchor_generator.cell_anchors.2"][0, 0] += 1
    with pytest.raises(DeployError, match=r"rpn\.anchor_sizes.*anchors of p4 are others"):
        instance_model_from_tensors(POINTREND, old)


CONTRADICTIONS = [
    ("fpn", {"out_channels": 16}, "fpn.out_channels"),
    ("rpn", {"aspect_ratios": (1.0,)}, "3 anchors a cell"),
    ("box_head", {"pooler_resolution": 9}, "box_head.pooler_resolution` is 9.*7 would fit"),
    ("rpn", {"num_conv": 2}, "rpn.num_conv` is 2.*1 would fit"),
    ("fpn", {"norm": "BN"}, 'fpn.norm` is BN; the checkpoint\'s FPN has no norm: "" would fit'),
    ("box_head", {"num_conv": 3}, "box_head.num_conv` is 3.*0 would fit"),
    ("box_head", {"fc_dim": 20}, "box_head.fc_dim` is 20.*16 would fit"),
    ("box_head", {"num_fc": 1}, "box_head.num_fc` is 1.*2 would fit"),
    ("box_head", {"class_agnostic": True}, "box_head.class_agnostic` is true.*false would fit"),
    ("mask_head", {"output_resolution": 14}, "mask_head.output_resolution` is 14.*7 would fit"),
    ("mask_head", {"channels": 16}, "mask_head.channels` is 16.*8 would fit"),
    ("mask_head", {"fc_dim": 20}, "mask_head.fc_dim` is 20.*16 would fit"),
    ("mask_head", {"num_fc": 1}, "mask_head.num_fc` is 1.*2 would fit"),
    ("point_head", {"num_fc": 2}, "point_head.num_fc` is 2.*3 would fit"),
    ("point_head", {"fc_dim": 20}, "point_head.fc_dim` is 20.*8 would fit"),
    ("point_head", {"in_features": ("p2", "p3")}, "1 feature would fit"),
    ("point_head", {"coarse_in_every_layer": False}, "every_layer` is false.*true would fit"),
    ("point_head", {"class_agnostic": True}, "point_head.class_agnostic` is true.*false would"),
]


@pytest.mark.parametrize(("table", "values", "said"), CONTRADICTIONS)
def test_a_contradiction_names_the_value_that_fits(
    table: str, values: dict[str, object], said: str
) -> None:
    with pytest.raises(DeployError, match=said):
        instance_model_from_tensors(changed(POINTREND, table, **values), tiny())


def test_contradictions_of_the_standard_head() -> None:
    recipe = changed(STANDARD, "mask_head", num_conv=4, channels=16, class_agnostic=True)
    with pytest.raises(DeployError) as refusal:
        instance_model_from_tensors(recipe, tiny(STANDARD))
    for said in ("num_conv` is 4", "2 would fit", "channels` is 16", "class_agnostic` is true"):
        assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("table", "recipe"),
    [("box_head", POINTREND), ("mask_head", STANDARD), ("point_head", POINTREND)],
)
def test_a_class_agnostic_checkpoint_names_the_key(table: str, recipe: InstanceRecipe) -> None:
    """A predictor of one row, and a recipe that expects one for each of three classes."""
    agnostic = tiny(changed(recipe, table, class_agnostic=True))
    with pytest.raises(DeployError, match=rf"`{table}\.class_agnostic` is false;.*true would fit"):
        instance_model_from_tensors(recipe, agnostic)


def test_the_federated_loss_tells_sigmoid_scores() -> None:
    """Its class weights are in detectron2's checkpoints; the model has no place for them."""
    held = {**tiny(), "roi_heads.box_predictor.fed_loss_cls_weights": torch.ones(3)}
    with pytest.raises(DeployError, match=r"class_scores` is softmax;.*sigmoid would fit"):
        instance_model_from_tensors(POINTREND, held)
    sigmoid = changed(POINTREND, "box_head", class_scores="sigmoid")
    instance_model_from_tensors(sigmoid, held)
    instance_model_from_tensors(sigmoid, tiny())


def test_contradictions_of_convolutions_and_norms() -> None:
    recipe = changed(STANDARD, "rpn", num_conv=2)
    recipe = changed(recipe, "box_head", num_conv=2, channels=32, norm="GN", num_fc=0)
    recipe = changed(recipe, "mask_head", channels=32, norm="SyncBN")
    assert instance_model_from_tensors(recipe, tiny(recipe))
    for table, values, said in (
        ("rpn", {"num_conv": 1}, "rpn.num_conv` is 1.*2 would fit"),
        ("box_head", {"num_conv": 1}, "box_head.num_conv` is 1.*2 would fit"),
        ("box_head", {"channels": 64}, "box_head.channels` is 64.*32 would fit"),
        ("box_head", {"num_fc": 1}, "box_head.num_fc` is 1.*0 would fit"),
        ("box_head", {"norm": ""}, 'box_head.norm` is "".*weight and bias alone.*GN would fit'),
        ("mask_head", {"norm": "GN"}, "mask_head.norm` is GN.*running statistics.*BN would fit"),
    ):
        with pytest.raises(DeployError, match=said):
            instance_model_from_tensors(changed(recipe, table, **values), tiny(recipe))


def test_another_number_of_classes() -> None:
    cityscapes = load_instance_recipe(EXPORT / "pointrend_mask_rcnn_r50_fpn_cityscapes.toml")
    with pytest.raises(DeployError, match="80 classes and background: 80 names would fit"):
        instance_model_from_tensors(cityscapes, named("pointrend_rcnn_R50"))


def test_the_other_mask_head() -> None:
    with pytest.raises(DeployError, match="mask head is Mask R-CNN's own: standard would fit"):
        instance_model_from_tensors(R50, named("mask_rcnn_R50"))
    standard = load_instance_recipe(EXPORT / "mask_rcnn_r50_fpn_coco.toml")
    with pytest.raises(DeployError, match="mask head is PointRend's: pointrend would fit"):
        instance_model_from_tensors(standard, named("pointrend_rcnn_R50"))


def test_another_depth() -> None:
    deeper = load_instance_recipe(EXPORT / "pointrend_mask_rcnn_r101_fpn_coco.toml")
    with torch.device("meta"), pytest.raises(DeployError, match="50 would fit"):
        instance_model_from_tensors(deeper, named("pointrend_rcnn_R50"))


def test_checkpoints_of_the_other_task() -> None:
    with pytest.raises(DeployError, match=r"SemanticFPN checkpoint.*instance models"):
        instance_model_from_tensors(R50, named("semantic_fpn_R50"))
    semantic = load_recipe(EXPORT / "semantic_fpn_r50_coco_stuff.toml")
    with pytest.raises(DeployError, match=r"PointRend instance checkpoint.*semantic models"):
        model_from_tensors(semantic, named("pointrend_rcnn_R50"))


def test_implicit_pointrend_is_refused_with_the_reason() -> None:
    tensors = named("pointrend_rcnn_R50")
    for name in list(tensors):
        if ".mask_head." in name:
            del tensors[name]
    head = "roi_heads.mask_head.parameter_head.prediction.weight"
    tensors[head] = torch.zeros(()).expand(283_000, 1024)
    with pytest.raises(DeployError, match=r"Implicit PointRend.*290 million weights") as refusal:
        instance_model_from_tensors(R50, tensors)
    assert "pointrend_mask_rcnn_r50_fpn_coco.toml" in (refusal.value.hint or "")
