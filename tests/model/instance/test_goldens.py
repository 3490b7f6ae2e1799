"""The reference instance models answer as detectron2 did."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.model import build_instance_model
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from tests import tolerances
from tests.golden_differences import EXPORT
from tests.golden_differences_instance import (
    CASES,
    RECIPES,
    Found,
    at_the_goldens_boxes,
    differences,
    free_running,
    golden,
    golden_stages,
)
from tests.goldens.read import HERE


def beyond(found: Found) -> set[str]:
    return {name for name, (value, (_, accept, _)) in found.items() if not value <= accept}


@pytest.mark.parametrize("case", CASES)
def test_within_tolerance(case: str) -> None:
    found = differences(case)
    assert not beyond(found)
    assert len(found) >= 15


def test_nothing_is_detected_in_the_blank_picture() -> None:
    stages = golden_stages("inst_blank")
    assert stages["boxes"].shape == (0, 4)
    assert stages["mask_logits"].shape == (0, 1, 224, 224)
    assert stages["masks"].shape == (0, 128, 160)
    proposals, wanted = len(stages["proposals"]), len(golden("inst_blank")["prop_boxes"])
    assert wanted == 688
    # an empty picture is full of near ties; which of them NMS keeps depends on the CPU's rounding
    assert abs(proposals - wanted) <= tolerances.PROPOSALS_UNMATCHED.accept * wanted


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_are_called_as_in_detectron2(name: str) -> None:
    keys = json.loads((HERE / "keys" / f"{name}.json").read_text())
    with torch.device("meta"):
        model = build_instance_model(load_instance_recipe(EXPORT / RECIPES[name]))
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == {key: shape for key, (shape, _) in keys.items()}


@pytest.mark.parametrize(
    ("backbone", "width", "strides"), [("r101", 64, (2, 1)), ("x101", 256, (1, 2))]
)
@pytest.mark.parametrize("head", ["mask_rcnn", "pointrend_mask_rcnn"])
def test_deeper_backbones(head: str, backbone: str, width: int, strides: tuple[int, int]) -> None:
    """ResNeXt-101-32x8d has 32 groups of 8 and its stride in the 3x3."""
    recipe = load_instance_recipe(EXPORT / f"{head}_{backbone}_fpn_coco.toml")
    with torch.device("meta"):
        model = build_instance_model(recipe)
    resnet = model.backbone.bottom_up
    weight = resnet.get_parameter("res2.0.conv2.weight")
    assert weight.shape == (width, 64 if backbone == "r101" else 8, 3, 3)
    block = resnet.get_submodule("res3.0")
    assert tuple(block.get_submodule(f"conv{k}").stride[0] for k in (1, 2)) == strides
    assert len(resnet.get_submodule("res4")) == 23


def plus(name: str, amount: float) -> dict[str, Tensor]:
    stages = dict(golden_stages("inst_288x416"))
    stages[name] = stages[name] + amount
    return stages


def test_planted_errors_in_features_are_seen() -> None:
    torch.manual_seed(0)
    stages = dict(golden_stages("inst_288x416"))
    stages["p2"] = stages["p2"] + 0.05 * torch.randn_like(stages["p2"])
    steps = {f"step {t} point logits" for t in range(4)}
    strays = {f"step {t} strays{what}" for t in (1, 2, 3) for what in ("", "' uncertainty")}
    found = beyond(at_the_goldens_boxes("inst_288x416", stages))
    assert found == {"pooled", "coarse"} | steps | strays
    assert "p2" in beyond(free_running("inst_288x416", stages))
    blank = dict(golden_stages("inst_blank"))
    for level in range(2, 6):
        blank[f"p{level}"] = blank[f"p{level}"] * 1.01
    found = beyond(at_the_goldens_boxes("inst_blank", blank))
    assert found == {"roi align", "class logits", "box deltas"}


class Planted(NamedTuple):
    """An error added to one stage.

    Attributes:
        name: of the stage.
        amount: added to all of its values.
        seen: quantities that must leave their tolerance.
        may_follow: quantities computed from the stage as well, which may leave theirs: whether
            they do depends on pixels that differ by rounding, so on the CPU. No other may.
    """

    name: str
    amount: float
    seen: set[str]
    may_follow: frozenset[str] = frozenset()


# Where a pasted mask differs from the golden's, our probability is sampled again at that pixel,
# from `mask_logits` in `output_boxes`: an error in either moves it. No pixel, no quantity.
PASTED_AGAIN = frozenset({"pasted masks, where they differ"})


@pytest.mark.parametrize(
    "planted",
    [
        Planted("p3", 6e-4, {"p3"}),
        Planted("p4", 6e-4, {"p4"}),
        Planted("p5", 6e-4, {"p5"}),
        Planted("p6", 6e-4, {"p6"}),
        Planted("proposal_logits", 1.1e-3, {"proposal logits"}),
        Planted("boxes", 0.03, {"det boxes"}),
        Planted("scores", 1.2e-3, {"det scores"}),
        Planted("output_boxes", 0.03, {"out boxes"}, PASTED_AGAIN),
        Planted("output_scores", 1.2e-3, {"out scores"}),
        Planted("classes", 1, {"det unmatched"}),
        Planted("output_classes", 1, {"out unmatched"}),
        Planted("mask_logits", 0.01, {"mask signs", "final logits apart"}, PASTED_AGAIN),
    ],
    ids=lambda planted: f"{planted.name}-{planted.amount}",
)
def test_a_planted_error_is_seen(planted: Planted) -> None:
    found = beyond(free_running("inst_288x416", plus(planted.name, planted.amount)))
    assert planted.seen <= found <= planted.seen | planted.may_follow


def test_a_missing_detection_and_moved_proposals_are_seen() -> None:
    stages = dict(golden_stages("inst_288x416"))
    for name in ("boxes", "scores", "classes"):
        stages[name] = stages[name][1:]
    stages["proposals"] = stages["proposals"].clone()
    stages["proposals"][:20] += 5.0
    found = beyond(free_running("inst_288x416", stages))
    assert found == {"det unmatched", "proposals unmatched"}


def test_a_mask_pasted_one_pixel_off_is_seen() -> None:
    stages = dict(golden_stages("inst_288x416"))
    stages["masks"] = stages["masks"].roll(1, dims=2)
    seen = {"pasted masks", "pasted masks, where they differ"}
    assert beyond(free_running("inst_288x416", stages)) == seen


def test_a_planted_error_in_the_standard_head_is_seen() -> None:
    stages = dict(golden_stages("maskrcnn_inst_288x416"))
    stages["mask_logits"] = stages["mask_logits"] + 0.01
    found = beyond(free_running("maskrcnn_inst_288x416", stages))
    seen = {"mask probabilities"}
    assert seen <= found <= seen | PASTED_AGAIN
