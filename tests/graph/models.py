"""Small models for the graph's tests: the demonstration backbone with narrow heads."""

from __future__ import annotations

import torch
from torch import nn

from pointrend_deploy.model.semantic.model import SemanticModel
from pointrend_deploy.recipe.parts import (
    ClassesSpec,
    EfficientNetLiteSpec,
    FPNSpec,
    InputSpec,
    PointHeadSpec,
)
from pointrend_deploy.recipe.semantic import CoarseHeadSpec, Recipe


def small_model(point_head: PointHeadSpec | None, classes: int = 7) -> SemanticModel:
    """A seeded SemanticFPN (+ PointRend) with batch norms that do something."""
    torch.manual_seed(0)
    model = SemanticModel(
        Recipe(
            name="small",
            input=InputSpec(
                channel_order="BGR",
                pixel_mean=(103.53, 116.28, 123.675),
                pixel_std=(57.375, 57.12, 58.395),
            ),
            classes=ClassesSpec(names=tuple(f"class {n}" for n in range(classes))),
            backbone=EfficientNetLiteSpec(),
            fpn=FPNSpec(in_features=("res2", "res3", "res4"), out_channels=32, top_level=False),
            coarse_head=CoarseHeadSpec(in_features=("p2", "p3", "p4"), channels=32),
            point_head=point_head,
        )
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.requires_grad_(False)


def point_head(points: int = 60, **changes: object) -> PointHeadSpec:
    """A narrow point head of two steps."""
    return PointHeadSpec(**{"subdivision_points": points, "fc_dim": 24, **changes})  # type: ignore[arg-type]
