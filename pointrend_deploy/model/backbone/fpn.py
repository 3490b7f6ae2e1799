"""Feature pyramid network (Lin et al. 2017; detectron2 modeling/backbone/fpn.py)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.model.backbone.efficientnet_lite import EfficientNetLite0
from pointrend_deploy.model.backbone.layers import Conv2d
from pointrend_deploy.model.backbone.resnet import ResNet
from pointrend_deploy.recipe.parts import FPNSpec


class FPN(nn.Module):
    """Levels ``p<k>`` at stride 2**k, all of ``out_channels``, from the backbone's ``res<k>``.

    The top-down path upsamples by nearest neighbour; ``top_level`` adds one level by taking every
    second cell of the last (max-pooling of size 1 and stride 2).
    """

    def __init__(self, bottom_up: ResNet | EfficientNetLite0, spec: FPNSpec) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.levels = [int(name.removeprefix("res")) for name in spec.in_features]
        self.top_level = spec.top_level
        for level in self.levels:
            channels, width = bottom_up.channels[f"res{level}"], spec.out_channels
            self.add_module(f"fpn_lateral{level}", Conv2d(channels, width, 1, norm=spec.norm))
            self.add_module(f"fpn_output{level}", Conv2d(width, width, 3, norm=spec.norm))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name, finest first, from (N, 3, H, W), multiples of the last stride."""
        features = self.bottom_up(x)
        outputs: dict[str, Tensor] = {}
        merged: Tensor | None = None
        for level in reversed(self.levels):
            lateral = self.get_submodule(f"fpn_lateral{level}")(features[f"res{level}"])
            if merged is not None:
                lateral = lateral + F.interpolate(merged, scale_factor=2.0, mode="nearest")
            merged = lateral
            outputs[f"p{level}"] = self.get_submodule(f"fpn_output{level}")(merged)
        pyramid = {f"p{level}": outputs[f"p{level}"] for level in self.levels}
        if self.top_level:
            last = self.levels[-1]
            pyramid[f"p{last + 1}"] = F.max_pool2d(pyramid[f"p{last}"], kernel_size=1, stride=2)
        return pyramid
