"""ResNet-50/101 and ResNeXt bottleneck backbones (detectron2 modeling/backbone/resnet.py)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.model.backbone.layers import Conv2d
from pointrend_deploy.recipe.parts import Norm, ResNetSpec

BLOCKS: dict[int, tuple[int, int, int, int]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Bottlenecks in res2..res5 by depth (He et al. 2016, table 1)."""


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut.

    The stride stands in the first 1x1 for weights that come from MSRA (``stride_in_1x1``), in the
    3x3 for those from torch or ResNeXt.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, stride: int, spec: ResNetSpec
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if spec.stride_in_1x1 else (1, stride)
        norm: Norm = spec.norm
        self.shortcut: Conv2d | None = None
        if in_channels != out_channels:
            self.shortcut = Conv2d(in_channels, out_channels, 1, stride=stride, norm=norm)
        self.conv1 = Conv2d(in_channels, width, 1, stride=first, norm=norm, relu=True)
        self.conv2 = Conv2d(
            width, width, 3, stride=second, groups=spec.groups, norm=norm, relu=True
        )
        self.conv3 = Conv2d(width, out_channels, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + shortcut)


class Stem(nn.Module):
    """7x7 convolution with stride 2 and 3x3 max-pooling with stride 2."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, 64, 7, stride=2, norm=norm, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 64, H / 4, W / 4)."""
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class ResNet(nn.Module):
    """Features ``res2``..``res5`` at strides 4, 8, 16, 32 with 256, 512, 1024, 2048 channels."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.stem = Stem(spec.norm)
        self.channels: dict[str, int] = {}
        in_channels, out_channels = 64, 256
        width = spec.groups * spec.width_per_group
        for level, count in enumerate(BLOCKS[spec.depth], start=2):
            blocks = []
            for index in range(count):
                stride = 2 if index == 0 and level > 2 else 1
                blocks.append(Bottleneck(in_channels, out_channels, width, stride, spec))
                in_channels = out_channels
            self.add_module(f"res{level}", nn.Sequential(*blocks))
            self.channels[f"res{level}"] = out_channels
            out_channels, width = out_channels * 2, width * 2

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features by name, from (N, 3, H, W) normalised pixels."""
        x = self.stem(x)
        features = {}
        for name in self.channels:
            x = self.get_submodule(name)(x)
            features[name] = x
        return features
