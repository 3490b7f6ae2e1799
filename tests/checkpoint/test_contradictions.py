"""A recipe that a checkpoint's shapes contradict is refused with the value that would fit."""

from __future__ import annotations

import msgspec
import pytest
import torch

from pointrend_deploy.recipe.parts import EfficientNetLiteSpec, FPNSpec
from pointrend_deploy.recipe.semantic import CoarseHeadSpec
from tests.checkpoint.checkpoints import (
    BASE,
    COARSE_ONLY,
    Change,
    changed,
    checkpoint_of,
    fit,
    refusal,
)


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
            {"coarse_head": {"norm": "SyncBN"}},
            "coarse_head.norm",
            "running statistics, as BN, SyncBN and FrozenBN have: BN would fit",
        ),
        (
            {"fpn": {"norm": "GN"}},
            "fpn.norm",
            "FPN have weight and bias alone, as GN and LN have: GN would fit",
        ),
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
    named = key.endswith(".norm") and '""' not in fits
    assert (f'set `{key} = "' if named else "set those keys") in found.hint
    assert f"`{key}` is " in refusal(checkpoint_of(BASE), other).message
    assert fit(checkpoint_of(other), other)


def test_batch_norms_fit_one_another() -> None:
    norms = ("BN", "SyncBN", "FrozenBN")
    recipes = [
        changed(BASE, {"fpn": {"norm": n}, "backbone": {"norm": n}, "coarse_head": {"norm": n}})
        for n in norms
    ]
    for other in recipes:
        for recipe in recipes:
            assert fit(checkpoint_of(other), recipe)


def test_a_backbone_of_group_norms() -> None:
    """Nothing tells it from a FrozenBN whose statistics were folded; from the others it differs."""
    grouped = changed(BASE, {"backbone": {"norm": "GN", "width_per_group": 32}})
    assert fit(checkpoint_of(grouped), grouped)
    batched = changed(BASE, {"backbone": {"norm": "BN", "width_per_group": 32}})
    assert "folded into them: FrozenBN or GN would fit" in refusal(
        checkpoint_of(grouped), batched
    ).message.replace('"', "")
    assert "BN would fit" in refusal(checkpoint_of(batched), grouped).message


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


def test_norms_of_another_backbone_are_not_spoken_of() -> None:
    other = msgspec.structs.replace(
        BASE,
        backbone=EfficientNetLiteSpec(),
        fpn=FPNSpec(in_features=("res2", "res3", "res4"), out_channels=64),
        coarse_head=CoarseHeadSpec(in_features=("p2", "p3", "p4"), channels=32),
    )
    found = refusal(checkpoint_of(other))
    assert "`backbone.kind`" in found.message
    assert "`backbone.norm`" not in found.message
    assert "set those keys" in found.hint
