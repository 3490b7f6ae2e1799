"""Class-agnostic heads and sigmoid scores answer as detectron2's own heads did.

The golden is of detectron2's ``StandardROIHeads`` alone: seeded maps of 32 channels, 24 proposals
and 5 classes go in. 40 detections are asked for, more than there are proposals.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.box_head import Detections, detect
from pointrend_deploy.model.instance.model import InstanceModel, build_instance_model
from pointrend_deploy.recipe.instance import (
    BoxHeadSpec,
    CoarseMaskHeadSpec,
    InstanceClassesSpec,
    InstancePointHeadSpec,
    InstanceRecipe,
    StandardMaskHeadSpec,
)
from pointrend_deploy.recipe.instance_check import check_instance_recipe
from tests import tolerances
from tests.fixtures.recipes import small_instance_recipe
from tests.fixtures.tiny_instance import changed
from tests.goldens.read import Arrays, read_golden

LEVELS = ("p2", "p3", "p4", "p5")
CHANNELS = 32


def recipe(**box_head: object) -> InstanceRecipe:
    base = small_instance_recipe()
    return msgspec.structs.replace(
        base,
        classes=InstanceClassesSpec(names=("a", "b", "c", "d", "e")),
        fpn=msgspec.structs.replace(base.fpn, out_channels=CHANNELS),
        box_head=msgspec.structs.replace(
            BoxHeadSpec(fc_dim=16, in_features=LEVELS, detections=40), **box_head
        ),
        mask_head=StandardMaskHeadSpec(
            in_features=LEVELS, channels=16, num_conv=2, class_agnostic=True
        ),
        point_head=None,
    )


AGNOSTIC = recipe(class_agnostic=True)
RECIPES = {
    "standard": AGNOSTIC,
    "pointrend": msgspec.structs.replace(
        AGNOSTIC,
        mask_head=CoarseMaskHeadSpec(channels=16, fc_dim=16),
        point_head=InstancePointHeadSpec(
            fc_dim=16, subdivision_steps=3, subdivision_points=196, class_agnostic=True
        ),
    ),
    "sigmoid": recipe(class_agnostic=True, class_scores="sigmoid"),
    "sigmoid_classes": changed(recipe(class_scores="sigmoid"), "mask_head", class_agnostic=False),
}
"""By the golden's prefix; the last one has boxes and masks for every class."""


def seeded(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """The values the golden was made with, by the parameter's name."""
    random = np.random.default_rng(zlib.crc32(f"agnostic:{name}".encode()))
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32) * np.float32(scale))


def scale_of(name: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 1:
        return 0.1
    scale = float((2.0 / np.prod(shape[1:])) ** 0.5)
    if "cls_score" in name:
        return 2.5 * scale
    if "bbox_pred" in name:
        return 0.7 * scale
    mask = "mask_head" in name and name.endswith(("predictor.weight", "prediction.weight"))
    return 3.0 * scale if mask else scale


def model(name: str) -> InstanceModel:
    made = build_instance_model(check_instance_recipe(RECIPES[name])).requires_grad_(False)
    for key, value in made.roi_heads.state_dict().items():
        value.copy_(seeded(key, tuple(value.shape), scale_of(key, tuple(value.shape))))
    return made


def features() -> dict[str, Tensor]:
    return {
        name: seeded(name, (1, CHANNELS, 96 >> level, 128 >> level))
        for level, name in enumerate(LEVELS, start=2)
    }


@cache
def golden() -> Arrays:
    return read_golden("heads_agnostic")


class Answer(NamedTuple):
    class_logits: Tensor
    deltas: Tensor
    found: Detections


def answer(name: str) -> Answer:
    made, proposals = model(name), torch.from_numpy(golden()["proposals"])
    logits, deltas = made.box_predictions(features(), proposals)
    return Answer(
        logits, deltas, detect(proposals, logits, deltas, (96, 128), made.recipe.box_head)
    )


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_are_those_of_detectron2(name: str) -> None:
    ours = {
        f"{key} {list(value.shape)}" for key, value in model(name).roi_heads.state_dict().items()
    }
    assert ours == set(golden()[f"{name}.parameters"].tolist())


@pytest.mark.parametrize("name", RECIPES)
def test_detections(name: str) -> None:
    ours, theirs = answer(name), golden()
    for part in ("class_logits", "deltas"):
        apart = np.abs(getattr(ours, part).numpy() - theirs[f"{name}.{part}"]).max()
        assert apart <= tolerances.BOX_HEAD_LOGITS.accept, part
    scores = theirs[f"{name}.scores"]
    assert len(scores) == 40 > len(theirs["proposals"])
    assert np.diff(np.sort(scores)).min() > 1e-4  # so that rounding cannot change the order
    assert ours.found.classes.tolist() == theirs[f"{name}.classes"].tolist()
    assert np.abs(ours.found.scores.numpy() - scores).max() <= tolerances.SCORES.accept
    boxes = np.abs(ours.found.boxes.numpy() - theirs[f"{name}.boxes"])
    assert boxes.max() <= tolerances.BOXES.accept


@pytest.mark.parametrize("name", ["standard", "pointrend"])
def test_masks(name: str) -> None:
    """At the golden's boxes; 6 of the 40 masks are held whole, of the others the covered cells."""
    theirs = golden()
    boxes, classes = (torch.from_numpy(theirs[f"{name}.{each}"]) for each in ("boxes", "classes"))
    logits = model(name).mask_stages(features(), boxes, classes)["mask_logits"][:, 0]
    few = theirs[f"{name}.mask_probs_n"]
    apart = np.abs(logits[: len(few)].sigmoid().numpy() - few)
    allowed = tolerances.MASK_LOGITS_APART.accept if name == "pointrend" else 0.0
    assert (apart > tolerances.MASK_PROBABILITIES.accept).mean() <= allowed
    covered = np.unpackbits(theirs[f"{name}.mask_bits"])[: logits.numel()].reshape(logits.shape)
    assert 0.1 < covered.mean() < 0.9
    other = (logits.sigmoid().numpy() >= 0.5) != covered.astype(bool)
    assert other.mean() <= tolerances.MASK_SIGNS.accept


def test_softmax_in_place_of_sigmoid_is_noticed() -> None:
    made = model("sigmoid")
    proposals = torch.from_numpy(golden()["proposals"])
    spec = msgspec.structs.replace(made.recipe.box_head, class_scores="softmax")
    found = detect(proposals, *made.box_predictions(features(), proposals), (96, 128), spec)
    assert np.abs(found.scores[:10].numpy() - golden()["sigmoid.scores"][:10]).max() > 0.05
