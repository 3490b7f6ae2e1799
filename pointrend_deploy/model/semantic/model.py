"""SemanticFPN, with PointRend where the recipe has a point head.

This is the PyTorch reference a semantic bundle is checked against. Source: detectron2
modeling/meta_arch/semantic_seg.py (SemanticSegmentor) and projects/PointRend/point_rend/
semantic_seg.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.checkpoint.read import Weights, read_weights
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.network_input import check_called_with
from pointrend_deploy.model.pointrend import StandardPointHead, subdivide
from pointrend_deploy.model.reference import ReferenceModel, filled
from pointrend_deploy.model.semantic.fpn_head import SemanticFPNHead
from pointrend_deploy.recipe.semantic import Recipe, load_recipe


class PointRendSemanticHead(nn.Module):
    """A coarse head and a point head under the names detectron2 gives them."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        spec = recipe.point_head
        if spec is None:
            raise DeployError(f"recipe {recipe.name} has no point_head section")
        self.coarse_sem_seg_head = SemanticFPNHead(
            recipe.coarse_head, recipe.fpn.out_channels, recipe.num_classes
        )
        fine_channels = len(spec.in_features) * recipe.fpn.out_channels
        self.point_head = StandardPointHead(spec, fine_channels, recipe.num_classes)


class SemanticModel(ReferenceModel):
    """SemanticFPN, with PointRend where the recipe has a point head.

    Parameter names are detectron2's, so its checkpoints load as they are. ``forward`` takes the
    normalised, padded network input and returns the logits; ``stages`` takes a picture.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.sem_seg_head: PointRendSemanticHead | SemanticFPNHead = (
            PointRendSemanticHead(recipe)
            if recipe.point_head
            else SemanticFPNHead(recipe.coarse_head, recipe.fpn.out_channels, recipe.num_classes)
        )

    @property
    def coarse_head(self) -> SemanticFPNHead:
        """The head that predicts the coarse logits."""
        head = self.sem_seg_head
        return head.coarse_sem_seg_head if isinstance(head, PointRendSemanticHead) else head

    @property
    def point_head(self) -> StandardPointHead | None:
        """The point head; None for the coarse head alone."""
        head = self.sem_seg_head
        return head.point_head if isinstance(head, PointRendSemanticHead) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised and padded -> logits (N, C, H, W); DeployError otherwise."""
        check_called_with(x)
        return self.canvas_stages(x)["logits"]

    def canvas_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Compute every stage from the network input on, in order.

        Args:
            x: (N, 3, H, W) float, normalised, padded to a multiple of ``size_divisibility``.

        Returns:
            ``p2``.., ``coarse`` (N, C, h, w), ``step<t>.indices`` (N, K) int64,
            ``step<t>.point_logits`` (N, C, K), ..., ``logits`` (N, C, H, W).
        """
        stages: dict[str, Tensor] = dict(self.backbone(x))
        coarse = self.coarse_head.layers(stages)
        stages["coarse"] = coarse
        spec = self.recipe.point_head
        if spec is None or self.point_head is None:
            stages["logits"] = F.interpolate(
                coarse,
                scale_factor=float(self.coarse_head.common_stride),
                mode="bilinear",
                align_corners=False,
            )
            return stages
        fine = [stages[name] for name in spec.in_features]
        stages.update(
            subdivide(
                coarse, fine, self.point_head, spec.subdivision_steps, spec.subdivision_points
            )
        )
        return stages

    def picture_stages(
        self, x: Tensor, image_hw: tuple[int, int], out_hw: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Compute every stage of one picture.

        The arguments are those of :meth:`ReferenceModel.picture_stages`.

        Returns:
            The stages of :meth:`canvas_stages` (N = 1) and last ``labels`` (1, H, W) uint8: the
            logits are cropped to the picture, resized bilinearly to ``out_hw``, then arg-maxed.
        """
        stages = self.canvas_stages(x)
        height, width = image_hw
        logits = stages["logits"][:, :, :height, :width]
        if tuple(out_hw) != (height, width):
            logits = F.interpolate(logits, size=out_hw, mode="bilinear", align_corners=False)
        stages["labels"] = logits.argmax(dim=1).to(torch.uint8)
        return stages


def build_model(recipe: Recipe) -> SemanticModel:
    """The module of a recipe, in eval mode, with freshly initialised weights."""
    return SemanticModel(recipe).eval()


def load_model(
    recipe: Recipe | str | Path,
    weights: str | Path,
    *,
    weights_key: str | None = None,
    ignore_extra: bool = False,
) -> SemanticModel:
    """As :func:`pointrend_deploy.model.load.load_model`, of a recipe known to be semantic."""
    spec = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    build = partial(build_model, spec)
    return filled(build, read_weights(weights, weights_key), spec, ignore_extra)


def model_from_tensors(recipe: Recipe, tensors: dict[str, Tensor]) -> SemanticModel:
    """As :func:`load_model`, from tensors already read: name to tensor, as in the file."""
    return filled(partial(build_model, recipe), Weights(tensors), recipe)
