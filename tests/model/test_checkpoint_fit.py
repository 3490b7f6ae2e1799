"""A checkpoint either gives the model's tensors or one error that says everything at odds."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.architectures import build_model, model_from_tensors
from pointrend_deploy.model.checkpoint_fit import fit_checkpoint
from pointrend_deploy.model.checkpoint_names import kind_of, todays_names
from pointrend_deploy.recipe import (
    ClassesSpec,
    CoarseHeadSpec,
    EfficientNetLiteSpec,
    FPNSpec,
    InputSpec,
    PointHeadSpec,
    Recipe,
    ResNetSpec,
    check_recipe,
    load_recipe,
)

BASE = Recipe(
    name="small",
    task="semantic",
    input=InputSpec(
        channel_order="BGR", pixel_mean=(103.53, 116.28, 123.675), pixel_std=(1.0, 1.0, 1.0)
    ),
    classes=ClassesSpec(names=("a", "b", "c", "d", "e")),
    backbone=ResNetSpec(depth=50, width_per_group=8),
    fpn=FPNSpec(out_channels=64),
    coarse_head=CoarseHeadSpec(channels=32),
    point_head=PointHeadSpec(fc_dim=48),
)
COARSE_ONLY = msgspec.structs.replace(BASE, point_head=None)

Change = dict[str, dict[str, Any]]


def changed(recipe: Recipe, change: Change) -> Recipe:
    parts = {
        part: msgspec.structs.replace(getattr(recipe, part), **values)
        for part, values in change.items()
    }
    return check_recipe(msgspec.structs.replace(recipe, **parts))


@functools.lru_cache(maxsize=64)
def shapes_of(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = build_model(recipe).state_dict()
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


def checkpoint_of(recipe: Recipe) -> dict[str, Tensor]:
    """Tensors of a recipe's model; each repeats one number, so they take no memory."""
    return {
        name: torch.tensor(0.5 + i / 1024).expand(shape)
        for i, (name, shape) in enumerate(shapes_of(recipe).items())
    }


def fit(tensors: dict[str, Tensor], recipe: Recipe = BASE) -> dict[str, Tensor]:
    return fit_checkpoint(tensors, shapes_of(recipe), recipe)


def refusal(tensors: dict[str, Tensor], recipe: Recipe = BASE) -> DeployError:
    with pytest.raises(DeployError) as caught:
        fit(tensors, recipe)
    assert caught.value.hint
    return caught.value


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


@pytest.mark.parametrize(
    ("change", "key", "fits"),
    [
        ({"backbone": {"depth": 101}}, "backbone.depth", "23 blocks: 101 would fit"),
        ({"backbone": {"groups": 2}}, "backbone.groups", "2 x 8 channels: 2 would fit"),
        (
            {"backbone": {"groups": 2, "width_per_group": 4}},
            "backbone.width_per_group",
            "2 x 4 channels: 4 would fit",
        ),
        ({"classes": {"names": ("a", "b", "c")}}, "classes.names", "3 names would fit"),
        ({"fpn": {"out_channels": 96}}, "fpn.out_channels", "96 would fit"),
        (
            {
                "fpn": {"in_features": ("res3", "res4", "res5")},
                "coarse_head": {"in_features": ("p3", "p4", "p5")},
                "point_head": {"in_features": ("p3",)},
            },
            "fpn.in_features",
            '["res3", "res4", "res5"] would fit',
        ),
        (
            {"coarse_head": {"in_features": ("p2", "p3")}},
            "coarse_head.in_features",
            '["p2", "p3"] would fit',
        ),
        ({"coarse_head": {"channels": 64}}, "coarse_head.channels", "64 would fit"),
        ({"coarse_head": {"norm": ""}}, "coarse_head.norm", '"" would fit'),
        (
            {
                "coarse_head": {"in_features": ("p3", "p4", "p5"), "common_stride": 8},
                "point_head": {"subdivision_steps": 3},
            },
            "coarse_head.common_stride",
            "8 would fit",
        ),
        ({"point_head": {"fc_dim": 80}}, "point_head.fc_dim", "80 would fit"),
        ({"point_head": {"num_fc": 2}}, "point_head.num_fc", "2 would fit"),
        ({"point_head": {"num_fc": 1}}, "point_head.num_fc", "1 would fit"),
        (
            {"point_head": {"coarse_in_every_layer": True}},
            "point_head.coarse_in_every_layer",
            "true would fit",
        ),
        (
            {"point_head": {"in_features": ("p2", "p3")}},
            "point_head.in_features",
            "133 = 2 x 64 + 5 channels: 2 features would fit",
        ),
    ],
)
def test_contradictions_both_ways(change: Change, key: str, fits: str) -> None:
    other = changed(BASE, change)
    found = refusal(checkpoint_of(other))
    assert f"`{key}` is " in found.message
    assert fits in found.message
    assert "set those keys" in found.hint
    assert f"`{key}` is " in refusal(checkpoint_of(BASE), other).message
    assert fit(checkpoint_of(other), other)


def test_one_error_lists_every_contradiction() -> None:
    other = changed(
        BASE,
        {
            "backbone": {"depth": 101},
            "classes": {"names": ("a", "b", "c")},
            "point_head": {"fc_dim": 80, "num_fc": 2, "coarse_in_every_layer": True},
        },
    )
    tensors = checkpoint_of(other) | {"pixel_mean": torch.tensor([1.0, 2.0, 3.0])}
    found = refusal(tensors)
    keys = [line.split("`")[1] for line in found.message.splitlines() if line.startswith("  - `")]
    assert keys == [
        "input.pixel_mean",
        "classes.names",
        "backbone.depth",
        "point_head.fc_dim",
        "point_head.num_fc",
        "point_head.coarse_in_every_layer",
    ]
    assert "that the model has no place for: backbone.bottom_up.res4.6" in found.message
    assert len(found.message) < 4000


def test_another_backbone() -> None:
    other = msgspec.structs.replace(
        BASE,
        backbone=EfficientNetLiteSpec(),
        fpn=FPNSpec(in_features=("res2", "res3", "res4"), out_channels=64, top_level=False),
        coarse_head=CoarseHeadSpec(in_features=("p2", "p3", "p4"), channels=32),
    )
    assert "efficientnet_lite0 would fit" in refusal(checkpoint_of(other)).message
    assert "resnet would fit" in refusal(checkpoint_of(BASE), other).message


def test_point_head_present_and_absent() -> None:
    assert "`point_head` is present" in refusal(checkpoint_of(COARSE_ONLY)).message
    assert "`point_head` is absent" in refusal(checkpoint_of(BASE), COARSE_ONLY).message


def test_class_agnostic_point_head() -> None:
    tensors = checkpoint_of(BASE)
    tensors["sem_seg_head.point_head.predictor.weight"] = torch.ones(1, 48, 1)
    tensors["sem_seg_head.point_head.predictor.bias"] = torch.ones(1)
    message = refusal(tensors).message
    assert "class-agnostic" in message
    assert "logit for each of 5 classes" in message


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
    ("key", "held", "said"),
    [
        ("pixel_mean", [102.0, 116.28, 123.675], "[102.0, 116.28, 123.675]"),
        ("pixel_mean", [123.675, 116.28, 103.53], "reversed: is `input.channel_order` RGB?"),
        ("pixel_mean", [103.53, float("nan"), 123.675], "nan"),
        ("pixel_mean", [103.53], "[103.53]"),
        ("pixel_std", [57.375, 57.12, 58.395], "[57.375, 57.12, 58.395]"),
        ("pixel_std", [1.0, 1.0, 1.002], "[1.0, 1.0, 1.002]"),
    ],
)
def test_pixel_statistics_against_the_recipe(key: str, held: list[float], said: str) -> None:
    message = refusal(checkpoint_of(BASE) | {key: torch.tensor(held).view(-1, 1, 1)}).message
    assert f"`input.{key}` is " in message
    assert said in message


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
    assert "for semantic models" in found.message
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


REPOSITORY = Path(__file__).parents[2]


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
