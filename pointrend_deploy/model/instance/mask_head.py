"""Mask heads: Mask R-CNN's four convolutions, and PointRend's coarse head.

Source: detectron2 modeling/roi_heads/mask_head.py (MaskRCNNConvUpsampleHead) and
projects/PointRend/point_rend/mask_head.py (ConvFCHead).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.model.backbone.layers import Conv2d
from pointrend_deploy.model.pointrend import StandardPointHead
from pointrend_deploy.recipe.instance import (
    CoarseMaskHeadSpec,
    InstancePointHeadSpec,
    StandardMaskHeadSpec,
)


class StandardMaskHead(nn.Module):
    """``num_conv`` 3x3 convolutions, a 2x2 deconvolution with stride 2 and a 1x1 predictor."""

    def __init__(self, spec: StandardMaskHeadSpec, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_conv = spec.num_conv
        for number in range(1, spec.num_conv + 1):
            layer = Conv2d(channels, spec.channels, 3, norm=spec.norm, relu=True)
            self.add_module(f"mask_fcn{number}", layer)
            channels = spec.channels
        self.deconv = nn.ConvTranspose2d(channels, spec.channels, 2, stride=2)
        self.predictor = Conv2d(spec.channels, 1 if spec.class_agnostic else num_classes, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C_in, S, S) -> mask logits (R, C, 2S, 2S), or (R, 1, 2S, 2S) class-agnostic."""
        x = pooled
        for number in range(1, self.num_conv + 1):
            x = self.get_submodule(f"mask_fcn{number}")(x)
        logits: Tensor = self.predictor(F.relu(self.deconv(x)))
        return logits


class CoarseMaskHead(nn.Module):
    """A 2x2 convolution with stride 2, fully connected layers, ``side`` squared logits a class.

    Pooled features wider than ``channels`` (of several levels) are first reduced by a 1x1
    convolution.
    """

    def __init__(self, spec: CoarseMaskHeadSpec, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_fc = spec.num_fc
        self.output_shape = (num_classes, spec.output_resolution, spec.output_resolution)
        self.reduce_channel_dim_conv: Conv2d | None = None
        if channels > spec.channels:
            self.reduce_channel_dim_conv = Conv2d(channels, spec.channels, 1, relu=True)
        self.reduce_spatial_dim_conv = nn.Conv2d(spec.channels, spec.channels, 2, stride=2)
        inputs = spec.channels * (spec.pooler_resolution // 2) ** 2
        for number in range(1, spec.num_fc + 1):
            self.add_module(f"fc{number}", nn.Linear(inputs, spec.fc_dim))
            inputs = spec.fc_dim
        self.prediction = nn.Linear(inputs, num_classes * spec.output_resolution**2)

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C_in, S, S) -> coarse mask logits (R, C, side, side)."""
        x = pooled
        if self.reduce_channel_dim_conv is not None:
            x = self.reduce_channel_dim_conv(x)
        x = F.relu(self.reduce_spatial_dim_conv(x)).flatten(1)
        for number in range(1, self.num_fc + 1):
            x = F.relu(self.get_submodule(f"fc{number}")(x))
        logits: Tensor = self.prediction(x)
        return logits.view(x.shape[0], *self.output_shape)


class PointRendMaskHead(nn.Module):
    """A coarse head and a point head under the names detectron2 gives them."""

    def __init__(
        self,
        coarse: CoarseMaskHeadSpec,
        points: InstancePointHeadSpec,
        channels: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.coarse_head = CoarseMaskHead(coarse, len(coarse.in_features) * channels, num_classes)
        self.point_head = StandardPointHead(
            points,
            len(points.in_features) * channels,
            num_classes,
            num_outputs=1 if points.class_agnostic else None,
        )
