"""A checkpoint either gives the model's tensors or one error that says everything at odds."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from pointrend_deploy.checkpoint.families import kind_of
from pointrend_deploy.checkpoint.names import todays_names
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.semantic.model import model_from_tensors
from pointrend_deploy.recipe.semantic import load_recipe
from tests.checkpoint.checkpoints import (
    BASE,
    COARSE_ONLY,
    changed,
    checkpoint_of,
    fit,
    refusal,
    shapes_of,
)
from tests.repository import ROOT


def test_fitting_tensors_come_in_the_models_order() -> None:
    tensors = checkpoint_of(BASE)
    fitted = fit(dict(reversed(tensors.items())))
    assert list(fitted) == list(shapes_of(BASE))
    assert all(torch.equal(fitted[name], value) for name, value in tensors.items())


def test_the_model_holds_the_checkpoints_values() -> None:
    tiny = changed(BASE, {"fpn": {"out_channels": 8}})
    model = model_from_tensors(tiny, checkpoint_of(tiny))
    state = model.state_dict()
    for name, value in checkpoint_of(tiny).items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype) -> None:
    fitted = fit({name: value.to(dtype) for name, value in checkpoint_of(BASE).items()})
    assert {value.dtype for value in fitted.values()} == {torch.float32}


def test_what_is_left_out() -> None:
    tensors = checkpoint_of(BASE) | {
        "pixel_mean": torch.tensor([103.5300, 116.2800, 123.6750]).view(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.ones(3, 4),
        "backbone.bottom_up.stem.conv1.norm.num_batches_tracked": torch.tensor(7),
    }
    assert list(fit(tensors)) == list(shapes_of(BASE))


def test_parallel_prefix() -> None:
    assert fit({f"module.{name}": value for name, value in checkpoint_of(BASE).items()})
    half = {f"module.{n}" if "res2" in n else n: v for n, v in checkpoint_of(BASE).items()}
    assert "module.backbone.bottom_up.res2.0" in refusal(half).message


def test_coarse_layers_outside_their_head() -> None:
    old = {
        name.replace("sem_seg_head.coarse_sem_seg_head.", "sem_seg_head."): value
        for name, value in checkpoint_of(BASE).items()
    }
    assert "sem_seg_head.predictor.weight" in old
    assert list(fit(old)) == list(shapes_of(BASE))


def test_old_instance_names() -> None:
    old = {
        "roi_heads.mask_point_head.fc1.weight": 1,
        "roi_heads.mask_coarse_head.coarse_mask_fc1.weight": 2,
        "roi_heads.mask_coarse_head.prediction.bias": 3,
        "roi_heads.mask_head.coarse_head.coarse_mask_fc2.bias": 4,
        "roi_heads.box_head.fc1.weight": 5,
    }
    assert todays_names(old) == {
        "roi_heads.mask_head.point_head.fc1.weight": 1,
        "roi_heads.mask_head.coarse_head.fc1.weight": 2,
        "roi_heads.mask_head.coarse_head.prediction.bias": 3,
        "roi_heads.mask_head.coarse_head.fc2.bias": 4,
        "roi_heads.box_head.fc1.weight": 5,
    }


def test_a_parameter_under_both_names() -> None:
    both = {"roi_heads.mask_point_head.x": 1, "roi_heads.mask_head.point_head.x": 2}
    with pytest.raises(DeployError, match="twice"):
        todays_names(both)


def test_folded_statistics() -> None:
    tensors = {n: v for n, v in checkpoint_of(BASE).items() if "running_" not in n}
    fitted = fit(tensors)
    norm = "backbone.bottom_up.res3.1.conv2.norm."
    assert torch.equal(fitted[norm + "running_mean"], torch.zeros(16))
    assert torch.equal(fitted[norm + "running_var"], torch.ones(16))
    trained = changed(BASE, {"backbone": {"norm": "BN"}})
    assert "missing" in refusal(tensors, trained).message


def test_statistics_that_only_some_norms_lack() -> None:
    tensors = checkpoint_of(BASE)
    del tensors["backbone.bottom_up.res3.1.conv2.norm.running_var"]
    found = refusal(tensors)
    assert "1 missing: backbone.bottom_up.res3.1.conv2.norm.running_var" in found.message


def test_missing_extra_and_misshapen_in_one_error() -> None:
    tensors = checkpoint_of(BASE)
    del tensors["backbone.fpn_output3.bias"]
    del tensors["sem_seg_head.point_head.fc2.bias"]
    tensors["sem_seg_head.extra.weight"] = torch.ones(2)
    tensors["backbone.fpn_output2.weight"] = torch.ones(64, 64, 1, 1)
    tensors["backbone.fpn_output2.bias"] = torch.ones(64, dtype=torch.int32)
    message = refusal(tensors).message
    assert "2 missing: backbone.fpn_output3.bias, sem_seg_head.point_head.fc2.bias" in message
    assert "1 that the model has no place for: sem_seg_head.extra.weight" in message
    assert (
        "1 of another shape: backbone.fpn_output2.weight [64, 64, 1, 1] where the model has "
        "[64, 64, 3, 3]"
    ) in message
    assert "1 that are not floating point: backbone.fpn_output2.bias int32" in message


def test_long_lists_are_shortened_with_their_count() -> None:
    tensors = checkpoint_of(BASE) | {f"backbone.extra{i}": torch.ones(1) for i in range(50)}
    assert "50 that the model has no place for" in refusal(tensors).message
    assert "backbone.extra19, and 30 more" in refusal(tensors).message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite(value: float) -> None:
    tensors = checkpoint_of(BASE)
    for name in ("backbone.fpn_output3.bias", "sem_seg_head.point_head.fc2.bias"):
        tensors[name] = tensors[name].clone()
        tensors[name][1] = value
    message = refusal(tensors).message
    assert "2 of its " in message
    assert "backbone.fpn_output3.bias, sem_seg_head.point_head.fc2.bias" in message


def test_float64_values_too_large() -> None:
    tensors = checkpoint_of(BASE)
    tensors["backbone.fpn_output3.bias"] = torch.full((64,), 1e300, dtype=torch.float64)
    assert "too large for float32: backbone.fpn_output3.bias" in refusal(tensors).message


@pytest.mark.parametrize(
    ("names", "what", "advice"),
    [
        (["roi_heads.mask_head.parameter_head.fc1.weight"], "Implicit PointRend", "no recipe"),
        (["roi_heads.mask_point_head.fc1.weight"], "PointRend instance", "instance"),
        (["roi_heads.mask_head.mask_fcn1.weight"], "Mask R-CNN", "instance"),
        (["roi_heads.mask_head.x", "sem_seg_head.p2.0.weight"], "Panoptic FPN", "recipe"),
        (["roi_heads.box_head.fc1.weight"], "box detector", "recipes"),
        (["sem_seg_head.aspp.convs.0.weight"], "DeepLab", "DeepLab"),
        (["stem.conv1.weight", "res2.0.conv1.weight"], "ImageNet backbone", "training"),
        (["layer1.0.conv1.weight", "conv1.weight"], "torchvision", "training"),
        (["decode_head.conv_seg.weight"], "mmsegmentation", "rename"),
        (["encoder.w"], "no detectron2 model", "detectron2's parameter names"),
    ],
)
def test_other_models_are_named(names: list[str], what: str, advice: str) -> None:
    found = refusal({name: torch.ones(1) for name in names})
    assert what in found.message
    fits = what in ("Implicit PointRend", "PointRend instance", "Mask R-CNN", "Panoptic FPN")
    assert ("; the recipe small is for semantic models" in found.message) == fits
    assert ("and no recipe fits it, of any task" in found.message) == (not fits)
    assert advice in found.hint


def test_semantic_models_are_named_for_other_tasks() -> None:
    assert kind_of(shapes_of(BASE)).what == "a PointRend semantic checkpoint"
    assert kind_of(shapes_of(COARSE_ONLY)).what.startswith("a SemanticFPN checkpoint")


@pytest.mark.parametrize("name", list(shapes_of(BASE))[::37])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 0, 0, 0), (7, 0, 3)])
def test_any_shape_gives_an_error_not_a_crash(name: str, shape: tuple[int, ...]) -> None:
    assert name in refusal(checkpoint_of(BASE) | {name: torch.ones(shape)}).message


def test_degenerate_shapes_everywhere() -> None:
    for shape in ((), (0,), (0, 0, 0), (0, 0, 0, 0)):
        tensors = {name: torch.ones(shape) for name in shapes_of(BASE)}
        assert "of another shape" in refusal(tensors).message


REPOSITORY = ROOT


def detectron2_keys(name: str) -> dict[str, Tensor]:
    keys = json.loads((REPOSITORY / "tests" / "goldens" / "keys" / f"{name}.json").read_text())
    return {key: torch.tensor(0.5).expand(shape) for key, (shape, _) in keys.items()}


@pytest.mark.parametrize(
    ("recipe_name", "keys"),
    [
        ("pointrend_semantic_fpn_r101_cityscapes", "pointrend_semantic_R101_cityscapes"),
        ("semantic_fpn_r50_coco_stuff", "semantic_fpn_R50"),
    ],
)
def test_shipped_recipes_fit_detectron2s_own_parameters(recipe_name: str, keys: str) -> None:
    recipe = load_recipe(REPOSITORY / "export" / f"{recipe_name}.toml")
    tensors = detectron2_keys(keys)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == shapes_of(recipe)
    assert list(fit(tensors, recipe)) == list(shapes_of(recipe))


def test_detectron2s_other_semantic_model() -> None:
    message = refusal(detectron2_keys("semantic_fpn_R50")).message
    assert "`classes.names` is 5 names; the checkpoint predicts 54 classes" in message
    assert "`point_head` is present" in message
