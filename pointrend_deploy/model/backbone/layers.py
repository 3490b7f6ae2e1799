"""Convolution with its normalisation, named as detectron2 does (``weight``, ``norm.weight``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.recipe.parts import GROUPS, Norm


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and parameters are constants (detectron2 FrozenBN).

    All four vectors are buffers, so that no optimiser moves them. ``eps`` is 1e-5.
    """

    eps = 1e-5
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W); same shape out."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class GroupNorm(nn.GroupNorm):
    """Group normalisation that also takes one value a group, which becomes the bias.

    torch's module refuses that, as it is of no use in training; a canvas of one cell has it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W); same shape out."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def make_norm(norm: Norm, channels: int) -> nn.Module | None:
    """The normalisation layer of that name over ``channels``; None for ``""``.

    ``SyncBN`` is ``BN``: only the statistics of a training step are taken over all its processes.
    """
    if norm == "FrozenBN":
        return FrozenBatchNorm2d(channels)
    if norm in ("BN", "SyncBN"):
        return nn.BatchNorm2d(channels)
    if norm == "GN":
        return GroupNorm(GROUPS, channels)
    return None


class Conv2d(nn.Conv2d):
    """Convolution, then ``norm`` when there is one, then ReLU where ``relu`` is set.

    The bias is present exactly where there is no norm, as in detectron2's FPN and ResNet.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: Norm = "",
        relu: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=norm == "",
        )
        self.norm = make_norm(norm, out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x) if self.relu else x
