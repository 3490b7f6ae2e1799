"""Small mask heads, boxes and features for the instance graph's tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pointrend_deploy.graph.instance.masks import InstanceMasks
from pointrend_deploy.model.instance.mask_head import PointRendMaskHead
from pointrend_deploy.model.pointrend import regular_grid, sample_in_boxes, subdivide_instances
from pointrend_deploy.recipe.instance import (
    CoarseMaskHeadSpec,
    InstancePointHeadSpec,
    subdivision_start,
)

CHANNELS = 8
SIZES = {"p2": (20, 28), "p3": (10, 14)}
STRIDES = {"p2": 4, "p3": 8}


class Problem:
    """A seeded mask head, boxes, classes and feature maps."""

    def __init__(
        self,
        rois: int = 5,
        classes: int = 60,
        levels: tuple[str, ...] = ("p2",),
        points: int = 784,
        dtype: torch.dtype = torch.float64,
        **point_head: Any,
    ) -> None:
        torch.manual_seed(rois)
        self.coarse = CoarseMaskHeadSpec(in_features=("p2",), channels=CHANNELS, fc_dim=16)
        self.points = InstancePointHeadSpec(
            **{"in_features": levels, "fc_dim": 8, "subdivision_points": points, **point_head}
        )
        head = PointRendMaskHead(self.coarse, self.points, CHANNELS, classes)
        for layer in (head.coarse_head.prediction, head.point_head.predictor):
            layer.weight.data.mul_(10.0)
        self.head: PointRendMaskHead = head.to(dtype).eval().requires_grad_(False)
        size = 20 + 60 * torch.rand(rois, 2, dtype=dtype)
        corner = torch.rand(rois, 2, dtype=dtype) * torch.tensor([60.0, 30.0])
        self.boxes = torch.cat((corner, corner + size), dim=1).to(dtype)
        self.classes = torch.randint(classes, (rois,))
        self.features = {
            name: torch.randn(1, CHANNELS, *SIZES[name], dtype=dtype)
            for name in dict.fromkeys(("p2", *levels))
        }

    def masks(self, **changes: Any) -> InstanceMasks:
        """The traceable module for this problem."""
        return InstanceMasks(
            self.head,
            self.coarse,
            self.points,
            **{
                "rois": len(self.boxes),
                "feature_hw": [SIZES[name] for name in self.features],
                "channels": CHANNELS,
                **changes,
            },
        ).eval()

    def reference(self) -> dict[str, Tensor]:
        """The reference's stages, detectron2's form."""
        side, names = self.coarse.pooler_resolution, self.points.in_features
        grid = regular_grid(self.boxes, side)
        pooled = sample_in_boxes([self.features["p2"]], [4], self.boxes, grid)
        coarse = self.head.coarse_head(pooled.unflatten(2, (side, side)))
        return {
            "coarse": coarse,
            **subdivide_instances(
                coarse,
                self.boxes,
                self.classes,
                [self.features[name] for name in names],
                [STRIDES[name] for name in names],
                self.head.point_head,
                subdivision_start(
                    self.coarse.output_resolution,
                    self.points.subdivision_steps,
                    self.points.subdivision_points,
                ),
                self.points.subdivision_points,
            ),
        }


class Flat(nn.Module):
    """The module with its outputs as a tuple, as the exporter names them."""

    def __init__(self, masks: InstanceMasks) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, boxes: Tensor, classes: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        """All stages in order."""
        return tuple(self.masks(boxes, classes, *features).values())
