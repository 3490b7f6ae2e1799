"""What the reference models of every task share: the backbone, and the way from a picture into it.

A task's model derives from :class:`ReferenceModel` and adds its heads, ``canvas_stages`` (from the
network input on) and ``picture_stages`` (to the output size).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointrend_deploy.checkpoint.fit import Fitted, fit_checkpoint
from pointrend_deploy.checkpoint.read import Weights
from pointrend_deploy.model.backbone.efficientnet_lite import EfficientNetLite0
from pointrend_deploy.model.backbone.fpn import FPN
from pointrend_deploy.model.backbone.resnet import ResNet
from pointrend_deploy.model.network_input import check_out_hw, network_input
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.parts import EfficientNetLiteSpec, FPNSpec, InputSpec, ResNetSpec
from pointrend_deploy.recipe.semantic import Recipe


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


class ReferenceModel(nn.Module, ABC):
    """A backbone with a feature pyramid, under detectron2's parameter names (``backbone.*``).

    It computes in the type of its parameters: float32 as loaded, float64 after ``double()``.

    Attributes:
        fitted: how a checkpoint's tensors were fitted to it; None where no checkpoint was loaded.
    """

    def __init__(self, recipe: HasBackbone) -> None:
        super().__init__()
        spec = recipe.backbone
        bottom_up = ResNet(spec) if isinstance(spec, ResNetSpec) else EfficientNetLite0()
        self.backbone = FPN(bottom_up, recipe.fpn)
        self.input = recipe.input
        self.fitted: Fitted | None = None

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

    @torch.no_grad()
    def stages(
        self, image: NDArray[np.uint8], out_hw: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        """Compute every stage for one picture, as detectron2 does.

        Args:
            image: H x W x 3 uint8 in the recipe's channel order; any size.
            out_hw: height and width of what comes last; the picture's own size when absent.

        Returns:
            The stages of ``canvas_stages`` (N = 1), then those at the output size: see
            ``picture_stages`` of the task's model.

        Raises:
            DeployError: the image is not H x W x 3 uint8, or ``out_hw`` is not positive.
        """
        check_out_hw(out_hw)
        x = self.network_input(image)
        image_hw = (image.shape[0], image.shape[1])
        return self.picture_stages(x, image_hw, out_hw or image_hw)

    @abstractmethod
    def picture_stages(
        self, x: Tensor, image_hw: tuple[int, int], out_hw: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Compute every stage from the network input of one picture to the output size.

        Args:
            x: (1, 3, H', W'), as :meth:`network_input` gives it.
            image_hw: height and width of the picture in ``x``, without its padding.
            out_hw: height and width of what comes last.
        """


Model = TypeVar("Model", bound=ReferenceModel)


def filled(
    build: Callable[[], Model],
    weights: Weights,
    recipe: Recipe | InstanceRecipe,
    ignore_extra: bool = False,
) -> Model:
    """Build a module with a checkpoint's weights, without gradients.

    The module is first built without memory behind its tensors, so that a recipe whose layers would
    not fit in memory is refused because they are not those of the checkpoint.

    Args:
        build: builds the module of the recipe.
        weights: of the checkpoint.
        recipe: what ``build`` builds.
        ignore_extra: leave out tensors that no part of the model has a place for.

    Returns:
        The module; its ``fitted`` has no tensors, since the module has them.

    Raises:
        DeployError: they do not fit; see :func:`~pointrend_deploy.checkpoint.fit.fit_checkpoint`.
    """
    with torch.device("meta"):
        shapes = build().state_dict()
    expected = {
        name: tuple(value.shape)
        for name, value in shapes.items()
        if not name.endswith("num_batches_tracked")
    }
    fitted = fit_checkpoint(weights, expected, recipe, ignore_extra)
    model = build()
    model.load_state_dict(fitted.tensors, strict=False, assign=True)
    model.fitted = replace(fitted, tensors={})
    return model.requires_grad_(False)
