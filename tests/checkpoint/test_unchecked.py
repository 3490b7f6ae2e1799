"""What of a recipe a checkpoint tells, and what is the recipe's word alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch

from pointrend_deploy.checkpoint.fit import Fitted, fit_checkpoint
from pointrend_deploy.checkpoint.read import Weights
from pointrend_deploy.checkpoint.suggestions import with_value
from pointrend_deploy.checkpoint.unchecked import READ_BACK, not_checked
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceRecipe, cell_anchors
from pointrend_deploy.recipe.read import check_any_recipe
from pointrend_deploy.recipe.semantic import Recipe
from tests.checkpoint.checkpoints import BASE, COARSE_ONLY, checkpoint_of, shapes_of
from tests.fixtures.tiny_instance import POINTREND, STANDARD, changed, model

CONVOLUTIONS = changed(STANDARD, "box_head", num_conv=2, channels=32, norm="GN", num_fc=1)
RECIPES = (BASE, COARSE_ONLY, POINTREND, STANDARD, CONVOLUTIONS)


def tensors_of(recipe: Recipe | InstanceRecipe) -> dict[str, torch.Tensor]:
    if isinstance(recipe, Recipe):
        return checkpoint_of(recipe)
    return dict(model(recipe).state_dict())


def fitted(recipe: Recipe | InstanceRecipe, weights: Weights) -> Fitted:
    if isinstance(recipe, Recipe):
        return fit_checkpoint(weights, shapes_of(recipe), recipe)
    state = model(recipe).state_dict()
    shapes = {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    return fit_checkpoint(weights, shapes, recipe)


def keys_of(found: Fitted) -> dict[str, Any]:
    return {each.key: each.value for each in found.not_checked}


OTHER: dict[str, Any] = {
    "input.channel_order": "RGB",
    "input.pixel_mean": [1.0, 2.0, 3.0],
    "input.size_divisibility": 64,
    "backbone.stride_in_1x1": False,
    "backbone.depth": 101,
    "backbone.width_per_group": 16,
    "fpn.out_channels": 32,
    "fpn.norm": "GN",
    "coarse_head.channels": 64,
    "coarse_head.norm": "",
    "rpn.anchor_offset": 0.5,
    "rpn.nms_threshold": 0.6,
    "rpn.post_nms_topk": 7,
    "rpn.num_conv": 2,
    "box_head.box_weights": [1.0, 1.0, 1.0, 1.0],
    "box_head.sampling_ratio": 2,
    "box_head.class_scores": "sigmoid",
    "box_head.score_threshold": 0.3,
    "box_head.detections": 3,
    "box_head.fc_dim": 24,
    "box_head.pooler_resolution": 3,
    "mask_head.sampling_ratio": 2,
    "mask_head.pooler_resolution": 4,
    "point_head.fc_dim": 24,
    "point_head.num_fc": 1,
    "point_head.coarse_in_every_layer": None,
    "point_head.subdivision_points": 9,
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_key_is_read_back_or_listed(recipe: Recipe | InstanceRecipe) -> None:
    """Every key, changed: the checkpoint contradicts it, or it stands in the list."""
    weights = Weights(tensors_of(recipe))
    listed = keys_of(fitted(recipe, weights))
    changes = 0
    for key, value in OTHER.items():
        table, name = key.split(".")
        part = getattr(recipe, table, None)
        if part is None or not hasattr(part, name):
            continue
        old = getattr(part, name)
        other = with_value(recipe, key, not old if value is None else value)
        try:
            check_any_recipe(other, "recipe")
        except DeployError:
            continue  # one key alone cannot be changed to that in this recipe
        if other == recipe:
            continue
        changes += 1
        if key in listed:
            assert keys_of(fitted(other, weights))[key] != listed[key]
        else:
            with pytest.raises(DeployError, match=r"does not fit the recipe"):
                fitted(other, weights)
    assert changes >= 8


def test_what_no_shape_tells_is_listed_first() -> None:
    found = keys_of(fitted(POINTREND, Weights(tensors_of(POINTREND))))
    assert list(found)[:3] == ["input.channel_order", "input.pixel_mean", "input.pixel_std"]
    assert "backbone.stride_in_1x1" in keys_of(fitted(BASE, Weights(tensors_of(BASE))))
    for key in (
        "rpn.anchor_sizes",
        "box_head.box_weights",
        "box_head.sampling_ratio",
        "box_head.class_scores",
        "box_head.score_threshold",
        "point_head.subdivision_points",
    ):
        assert key in found
    assert not READ_BACK & set(found)


def test_what_this_checkpoint_tells_is_not_listed() -> None:
    tensors = tensors_of(POINTREND)
    tensors["pixel_mean"] = torch.tensor(POINTREND.input.pixel_mean)
    for level, (sizes, ratios) in enumerate(POINTREND.rpn.anchors):
        name = f"proposal_generator.anchor_generator.cell_anchors.{level}"
        tensors[name] = torch.tensor(cell_anchors(sizes, ratios))
    configuration = {"INPUT": {"FORMAT": POINTREND.input.channel_order}}
    found = keys_of(fitted(POINTREND, Weights(tensors, beside={"cfg": configuration})))
    told = {"input.pixel_mean", "input.channel_order", "rpn.anchor_sizes", "rpn.aspect_ratios"}
    assert not told & set(found)
    assert "input.pixel_std" in found


@pytest.mark.parametrize(
    ("beside", "key"),
    [
        ({"cfg": {"INPUT": {"FORMAT": "RGB"}}}, "input.channel_order"),
        ({"hyper_parameters": {"pixel_mean": [1, 2, 3]}}, "input.pixel_mean"),
        (
            {"config": {"cfg": {"MODEL": {"RESNETS": {"STRIDE_IN_1X1": False}}}}},
            "backbone.stride_in_1x1",
        ),
        ({"cfg": {"MODEL": {"ANCHOR_GENERATOR": {"SIZES": [[7.0]]}}}}, "rpn.anchor_sizes"),
    ],
)
def test_a_configuration_in_the_file_is_compared(beside: dict[str, Any], key: str) -> None:
    recipe = (
        BASE if key.startswith("backbone") else changed(POINTREND, "input", channel_order="BGR")
    )
    with pytest.raises(DeployError) as caught:
        fitted(recipe, Weights(tensors_of(recipe), beside=beside))
    assert f"`{key}" in caught.value.message
    assert "the configuration in the checkpoint" in caught.value.message


def test_a_configuration_of_another_form_says_nothing() -> None:
    for beside in ({"cfg": "INPUT: {"}, {"cfg": {"INPUT": 3}}, {"cfg": {"INPUT": {"FORMAT": 7}}}):
        assert "input.channel_order" in keys_of(
            fitted(BASE, Weights(tensors_of(BASE), beside=beside))
        )


def test_new_keys_count_as_not_checked() -> None:
    every = {each.key for each in not_checked(POINTREND)} | READ_BACK
    table = msgspec.to_builtins(POINTREND)
    own = {
        f"{part}.{key}"
        for part, values in table.items()
        if isinstance(values, dict)
        for key in values
    }
    assert own - every <= {"classes.colours", "classes.category_ids", "mask_head.pooler_resolution"}
