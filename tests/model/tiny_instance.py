"""Small instance recipes and models with weights that make them find things."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from pointrend_deploy.model.instance.model import InstanceModel, build_instance_model
from pointrend_deploy.recipe.instance import (
    BoxHeadSpec,
    CoarseMaskHeadSpec,
    InstanceClassesSpec,
    InstancePointHeadSpec,
    InstanceRecipe,
    RPNSpec,
    StandardMaskHeadSpec,
)
from pointrend_deploy.recipe.instance_check import check_instance_recipe
from pointrend_deploy.recipe.parts import EfficientNetLiteSpec, FPNSpec, InputSpec

POINTREND = InstanceRecipe(
    name="tiny",
    input=InputSpec(
        channel_order="RGB", pixel_mean=(120.0, 120.0, 120.0), pixel_std=(60.0, 60.0, 60.0)
    ),
    classes=InstanceClassesSpec(names=("a", "b", "c")),
    backbone=EfficientNetLiteSpec(),
    fpn=FPNSpec(in_features=("res2", "res3", "res4"), out_channels=8),
    rpn=RPNSpec(
        in_features=("p2", "p3", "p4", "p5"),
        anchor_sizes=((16.0,), (32.0,), (64.0,), (128.0,)),
        pre_nms_topk=60,
        post_nms_topk=40,
    ),
    box_head=BoxHeadSpec(in_features=("p2", "p3", "p4"), fc_dim=16, detections=20),
    mask_head=CoarseMaskHeadSpec(channels=8, fc_dim=16),
    point_head=InstancePointHeadSpec(fc_dim=8),
)
STANDARD = msgspec.structs.replace(
    POINTREND,
    mask_head=StandardMaskHeadSpec(in_features=("p2", "p3", "p4"), channels=8, num_conv=2),
    point_head=None,
)


def changed(recipe: InstanceRecipe, table: str, **values: Any) -> InstanceRecipe:
    """The recipe with values of one table replaced."""
    part = msgspec.structs.replace(getattr(recipe, table), **values)
    return msgspec.structs.replace(recipe, **{table: part})


def model(recipe: InstanceRecipe, seed: int = 0) -> InstanceModel:
    """Random weights, the predictors' large enough to be sure of something."""
    torch.manual_seed(seed)
    made = build_instance_model(check_instance_recipe(recipe)).requires_grad_(False)
    predictor = made.roi_heads.box_predictor.cls_score
    predictor.weight.mul_(30.0)
    made.roi_heads.box_predictor.bbox_pred.weight.mul_(3.0)
    for name, value in made.roi_heads.mask_head.named_parameters():
        if "predict" in name and name.endswith("weight"):
            value.mul_(20.0)
    return made


def picture(height: int = 90, width: int = 120, seed: int = 0) -> NDArray[np.uint8]:
    """Coloured blocks of 10 pixels."""
    blocks = np.random.default_rng(seed).integers(
        0, 256, (-(-height // 10), -(-width // 10), 3), dtype=np.uint8
    )
    return blocks.repeat(10, axis=0).repeat(10, axis=1)[:height, :width]
