"""Layers with weights: which nodes they are, what they belong to, what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from pointrend_deploy.quantize.layers import WeightedLayer, role_and_block, weighted_layers
from tests.fixtures.small_graphs import (
    Graph,
    instance_heads,
    residual_pyramid,
    shared_levels,
    standard_mask_head,
)


def by_name(model: object) -> dict[str, WeightedLayer]:
    return {layer.name: layer for layer in weighted_layers(model)}  # type: ignore[arg-type]


def test_a_product_of_two_activations_is_no_layer_and_gathered_weights_are_one() -> None:
    layers = by_name(instance_heads())
    assert "roi_heads.mask_head.matmul" not in layers
    gathered = layers["roi_heads.mask_head.point_head.matmul_2"]
    assert gathered.weight is None
    assert gathered.activation == 0
    left = by_name(standard_mask_head())["roi_heads.mask_head"]
    assert (left.weight, left.activation, left.role) == (None, 1, "predictor")


def test_every_layer_of_the_small_graphs_has_a_role() -> None:
    for model in (residual_pyramid(), shared_levels(), instance_heads(), standard_mask_head()):
        assert all(layer.role != "other" for layer in weighted_layers(model))


BODY = "backbone.bottom_up"
COARSE = "sem_seg_head.coarse_sem_seg_head"
POINT = "sem_seg_head.point_head"
RPN = "proposal_generator.rpn_head"
MASK = "roi_heads.mask_head"
COARSE_MASK = f"{MASK}.coarse_head"


@pytest.mark.parametrize(
    ("name", "refines", "role", "block"),
    [
        (f"{BODY}.stem.0", True, "backbone", f"{BODY}.stem"),
        (f"{BODY}.stem.conv1", True, "backbone", f"{BODY}.stem"),
        (f"{BODY}.res4.22.conv3", True, "backbone", f"{BODY}.res4.22"),
        (f"{BODY}.res3.0.shortcut", True, "backbone", f"{BODY}.res3.0"),
        (f"{BODY}.blocks.10.expand.0", True, "backbone", f"{BODY}.blocks.10"),
        ("backbone.fpn_lateral4", True, "fpn", "backbone.fpn"),
        ("sem_seg_head.p5.4", False, "coarse_head", "sem_seg_head"),
        ("sem_seg_head.predictor", False, "predictor", "sem_seg_head"),
        (f"{COARSE}.p4.0", True, "coarse_head", COARSE),
        (f"{COARSE}.predictor", True, "predictor", COARSE),
        (f"{POINT}.conv", True, "point_head", POINT),
        (f"{POINT}.fc1.step0", True, "point_head", POINT),
        (f"{POINT}.predictor.step0", True, "point_head", POINT),
        (f"{RPN}.conv.p6", True, "rpn", RPN),
        (f"{RPN}.anchor_deltas.p2", True, "predictor", RPN),
        ("roi_heads.box_head.fc2", True, "box_head", "roi_heads.box_head"),
        ("roi_heads.box_predictor.bbox_pred", True, "predictor", "roi_heads.box_predictor"),
        (f"{COARSE_MASK}.fc2", True, "coarse_head", COARSE_MASK),
        (f"{COARSE_MASK}.prediction", True, "predictor", COARSE_MASK),
        (MASK, True, "point_head", f"{MASK}.point_head"),
        (MASK, False, "predictor", MASK),
        (f"{MASK}.mask_fcn3", False, "mask_head", MASK),
        (f"{MASK}.deconv", False, "mask_head", MASK),
        ("graph.conv", True, "other", "graph"),
    ],
)
def test_role_and_block(name: str, refines: bool, role: str, block: str) -> None:
    assert role_and_block(name, refines) == (role, block)


def test_flops_are_two_a_product_of_every_op() -> None:
    head = by_name(standard_mask_head())
    # 4 x 4 cells, 8 -> 8 channels, 3 x 3; then every cell to 2 x 2 cells of 6 channels
    assert head["roi_heads.mask_head.mask_fcn1"].flops == 2 * 16 * 8 * 8 * 9
    assert head["roi_heads.mask_head.deconv"].flops == 2 * 16 * 8 * 6 * 4
    assert head["roi_heads.mask_head"].flops == 2 * 64 * 6
    heads = by_name(instance_heads())
    assert heads["roi_heads.box_head.fc1"].flops == 2 * 128 * 16  # R is open: one RoI
    assert heads["roi_heads.mask_head.point_head"].flops == 2 * 5 * 6 * 10
    body = by_name(residual_pyramid())
    assert body["backbone.bottom_up.res3.0.depthwise"].flops == 2 * 4 * 4 * 16 * 9


def test_the_weight_is_found_through_a_cast_and_a_shared_one_by_its_own_name() -> None:
    g = Graph(x=(2, 4))
    weight = g.constant("backbone.fpn_x.weight", np.ones((4, 3), np.float16))
    g.node("MatMul", "backbone.fpn_x", "x", g.node("Cast", "cast", weight, to=1))
    assert weighted_layers(g.model("backbone.fpn_x.out"))[0].weight == "backbone.fpn_x.weight"
    shared = weighted_layers(shared_levels())
    assert len({layer.weight for layer in shared if layer.role == "rpn"}) == 1
