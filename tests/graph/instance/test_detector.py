"""Proposals and detections with fixed shapes are the reference's: float64, eagerly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.instance.detector import Detector
from pointrend_deploy.graph.instance.specs import anchors_kept, proposal_rows, pyramid_hw
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.recipe.instance import InstanceRecipe
from tests.fixtures.instance_graphs import GRID, SIZES, canvas, referred
from tests.fixtures.tiny_instance import POINTREND, changed, model, picture

EXACT = 1e-9
DETECTIONS = 20


def double(recipe: InstanceRecipe, seed: int = 0) -> InstanceModel:
    return model(recipe, seed).double()


def compare(reference: InstanceModel, pairs: tuple[Tensor, Tensor], rows: int = DETECTIONS) -> int:
    """Proposals and detections equal; the number of detections."""
    image, extent = pairs
    found = Detector(reference, GRID, rows).eval()(image, extent)
    total = 0
    for n, wanted in enumerate(referred(reference, image, extent)):
        for name, number in (("proposals", "proposal_count"), ("boxes", "num_detections")):
            count = int(found[number][n])
            assert count == len(wanted[name]), name
            assert (
                float((found[name][n, :count] - wanted[name]).abs().max().nan_to_num()) < EXACT
                if count
                else True
            ), name
            assert not found[name][n, count:].any()
        assert torch.equal(found["classes"][n, :count], wanted["classes"])
        assert not found["classes"][n, count:].any() and not found["scores"][n, count:].any()
        apart = (found["scores"][n, :count] - wanted["scores"]).abs()
        assert not (apart > EXACT).any()
        total += count
    return total


def pictures(reference: InstanceModel, seed: int = 0) -> tuple[Tensor, Tensor]:
    return canvas(reference, [picture(*size, seed) for size in SIZES])


RECIPES = {
    "as it is": POINTREND,
    "one box for all classes": changed(POINTREND, "box_head", class_agnostic=True),
    "sigmoid scores": changed(POINTREND, "box_head", class_scores="sigmoid"),
    "fewer proposals than anchors": changed(POINTREND, "rpn", pre_nms_topk=9, post_nms_topk=30),
    "every anchor": changed(POINTREND, "rpn", pre_nms_topk=3000, post_nms_topk=60),
    "anchors of several sizes": changed(
        POINTREND, "rpn", anchor_sizes=((8.0, 16.0), (32.0, 40.0), (64.0, 80.0), (128.0, 160.0))
    ),
    "one level pooled": changed(POINTREND, "box_head", in_features=("p3",)),
    "levels the mask head skips": changed(POINTREND, "box_head", in_features=("p3", "p4", "p5")),
    "strong suppression": changed(
        changed(POINTREND, "rpn", nms_threshold=0.2), "box_head", nms_threshold=0.1
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_equals_the_reference(name: str) -> None:
    """Four pictures smaller than the grid, in one batch."""
    reference = double(changed(RECIPES[name], "box_head", detections=DETECTIONS))
    assert compare(reference, pictures(reference)) > 10


@pytest.mark.parametrize("rows", [1, 7])
def test_more_candidates_than_rows(rows: int) -> None:
    reference = double(changed(POINTREND, "box_head", detections=rows))
    assert compare(reference, pictures(reference), rows) == rows * len(SIZES)


def test_more_detections_than_proposals() -> None:
    """All candidates, 40 proposals with 3 classes each, are detections where nothing is dropped."""
    recipe = changed(POINTREND, "box_head", score_threshold=0.0, nms_threshold=1.0, detections=120)
    reference = double(recipe)
    image, extent = pictures(reference)
    found = Detector(reference, GRID, 120).eval()(image, extent)
    assert torch.equal(found["num_detections"], 3 * found["proposal_count"])
    assert int(found["num_detections"].max()) > 40
    for n, wanted in enumerate(referred(reference, image, extent)):
        count = int(found["num_detections"][n])
        assert count == len(wanted["scores"])
        assert float((found["scores"][n, :count] - wanted["scores"]).abs().max()) < EXACT
        pairs = {
            (c, *[round(v, 6) for v in box])
            for c, box in zip(wanted["classes"].tolist(), wanted["boxes"].tolist(), strict=True)
        }
        for c, box in zip(
            found["classes"][n, :count].tolist(), found["boxes"][n, :count].tolist(), strict=True
        ):
            assert (c, *[round(v, 6) for v in box]) in pairs


def test_no_detection() -> None:
    reference = double(changed(POINTREND, "box_head", score_threshold=0.9999999))
    assert compare(reference, pictures(reference)) == 0


def test_padding_proposals_become_no_detections() -> None:
    """Of ten anchors most overlap: fewer proposals than rows, and a head that likes them all."""
    recipe = changed(POINTREND, "rpn", pre_nms_topk=10, nms_threshold=0.05)
    recipe = changed(recipe, "box_head", score_threshold=0.0, nms_threshold=1.0, detections=40)
    reference = double(recipe)
    image, extent = pictures(reference)
    found = Detector(reference, GRID, 40).eval()(image, extent)
    assert int(found["proposal_count"].max()) < proposal_rows(recipe, GRID) == 40
    assert compare(reference, (image, extent), 40) > 10


@pytest.mark.parametrize(
    ("layer", "entry"),
    [("objectness_logits", 1), ("anchor_deltas", 6), ("bbox_pred", 2), ("cls_score", 1)],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_dropped(layer: str, entry: int, value: float) -> None:
    reference = double(changed(POINTREND, "box_head", detections=DETECTIONS))
    heads = {
        **dict(reference.proposal_generator.rpn_head.named_modules()),
        **dict(reference.roi_heads.box_predictor.named_modules()),
    }
    bias = heads[layer].bias
    assert isinstance(bias, Tensor)
    bias[entry] = value
    compare(reference, pictures(reference))


def test_a_picture_of_nan() -> None:
    reference = double(POINTREND)
    image, extent = pictures(reference)
    image[0] = float("nan")
    compare(reference, (image, extent))


def test_boxes_are_clipped_to_the_extent_not_to_the_grid() -> None:
    reference = double(changed(POINTREND, "box_head", detections=DETECTIONS))
    image, extent = pictures(reference)
    found = Detector(reference, GRID, DETECTIONS).eval()(image, extent)
    limit = extent.flip(1).repeat(1, 2).unsqueeze(1).double()
    assert (found["boxes"] <= limit).all() and (found["boxes"] == limit).any()


def test_comparison_notices_a_planted_error() -> None:
    reference = double(changed(POINTREND, "box_head", detections=DETECTIONS))
    image, extent = pictures(reference)
    with pytest.raises(AssertionError):
        compare(reference, (image, extent - 1), rows=DETECTIONS - 1)


def test_sizes() -> None:
    """The top level rounds up; a level with few anchors sends all of them."""
    recipe = changed(POINTREND, "rpn", pre_nms_topk=60)
    assert pyramid_hw(recipe, (96, 160)) == {
        "p2": (24, 40),
        "p3": (12, 20),
        "p4": (6, 10),
        "p5": (3, 5),
    }
    assert pyramid_hw(recipe, (32, 32))["p5"] == (1, 1)
    assert anchors_kept(recipe, (96, 160)) == (60, 60, 60, 45)
    assert proposal_rows(recipe, (96, 160)) == 40
    assert proposal_rows(changed(recipe, "rpn", post_nms_topk=500), (96, 160)) == 225


@pytest.mark.parametrize("key", ["pre_nms_topk", "post_nms_topk"])
def test_more_than_a_topk_takes_is_refused(key: str) -> None:
    recipe = changed(POINTREND, "rpn", pre_nms_topk=3800, post_nms_topk=3840)
    proposal_rows(recipe, (960, 1280))
    with pytest.raises(DeployError, match=key):
        proposal_rows(changed(recipe, "rpn", **{key: 3841}), (960, 1280))
