"""What the reference models of every task share: the backbone, and the way from a picture into it.

A task's model derives from :class:`ReferenceModel` and adds its heads, ``canvas_stages`` (from the
network input on) and ``stages`` (from a picture on).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pointrend_deploy.model.backbone.efficientnet_lite import EfficientNetLite0
from pointrend_deploy.model.backbone.fpn import FPN
from pointrend_deploy.model.backbone.resnet import ResNet
from pointrend_deploy.model.network_input import network_input
from pointrend_deploy.recipe.parts import EfficientNetLiteSpec, FPNSpec, InputSpec, ResNetSpec


class HasBackbone(Protocol):
    """The tables that the recipes of all tasks have."""

    @property
    def input(self) -> InputSpec:
        """Channel order, normalisation and padding."""

    @property
    def backbone(self) -> ResNetSpec | EfficientNetLiteSpec:
        """The bottom-up network."""

    @property
    def fpn(self) -> FPNSpec:
        """The feature pyramid."""


class ReferenceModel(nn.Module):
    """A backbone with a feature pyramid, under detectron2's parameter names (``backbone.*``).

    It computes in the type of its parameters: float32 as loaded, float64 after ``double()``.
    """

    def __init__(self, recipe: HasBackbone) -> None:
        super().__init__()
        spec = recipe.backbone
        bottom_up = ResNet(spec) if isinstance(spec, ResNetSpec) else EfficientNetLite0()
        self.backbone = FPN(bottom_up, recipe.fpn)
        self.input = recipe.input

    def network_input(self, image: NDArray[np.uint8]) -> Tensor:
        """Normalise and pad a picture, in the type and on the device of the parameters.

        Args:
            image: H x W x 3 uint8 in the recipe's channel order; any size.

        Returns:
            (1, 3, H', W'), H' and W' the next multiples of ``size_divisibility``.

        Raises:
            DeployError: the image is not H x W x 3 uint8.
        """
        return network_input(image, self.input).to(next(self.parameters()))
