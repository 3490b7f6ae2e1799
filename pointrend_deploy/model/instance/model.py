"""Instance models: Mask R-CNN with its standard mask head or with PointRend.

Source: detectron2 modeling/meta_arch/rcnn.py, roi_heads/roi_heads.py, postprocessing.py and
projects/PointRend. This is the reference an instance bundle is checked against.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pointrend_deploy.checkpoint.read import Weights, read_weights
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.box_head import BoxHead, BoxPredictor, detect
from pointrend_deploy.model.instance.boxes import MASK_THRESHOLD, nonempty, paste_masks, scale
from pointrend_deploy.model.instance.mask_head import PointRendMaskHead, StandardMaskHead
from pointrend_deploy.model.instance.roi_align import pool_boxes
from pointrend_deploy.model.instance.rpn import RPN
from pointrend_deploy.model.network_input import check_called_with
from pointrend_deploy.model.pointrend import (
    StandardPointHead,
    of_class,
    regular_grid,
    sample_in_boxes,
    subdivide_instances,
)
from pointrend_deploy.model.reference import ReferenceModel, filled
from pointrend_deploy.recipe.instance import (
    BoxHeadSpec,
    InstanceRecipe,
    StandardMaskHeadSpec,
    subdivision_start,
)
from pointrend_deploy.recipe.instance_check import load_instance_recipe

ROIS_AT_ONCE = 16
"""RoIs whose masks are computed together; they are independent, so this only bounds memory."""


class RoIHeads(nn.Module):
    """The heads that work on boxes, under the names detectron2 gives them."""

    def __init__(self, recipe: InstanceRecipe) -> None:
        super().__init__()
        channels, classes = recipe.fpn.out_channels, recipe.num_classes
        self.box_head = BoxHead(recipe.box_head, channels)
        self.box_predictor = BoxPredictor(recipe.box_head, self.box_head.width, classes)
        self.mask_head: StandardMaskHead | PointRendMaskHead
        if isinstance(recipe.mask_head, StandardMaskHeadSpec):
            self.mask_head = StandardMaskHead(recipe.mask_head, channels, classes)
        elif recipe.point_head is None:
            raise DeployError(f"recipe {recipe.name} has no point_head section")
        else:
            self.mask_head = PointRendMaskHead(
                recipe.mask_head, recipe.point_head, channels, classes
            )


class InstanceModel(ReferenceModel):
    """Mask R-CNN, with PointRend where the recipe's mask head is of that kind.

    Parameter names are detectron2's, so its checkpoints load as they are. R, the number of boxes,
    may be 0 everywhere.
    """

    def __init__(self, recipe: InstanceRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.proposal_generator = RPN(recipe.rpn, recipe.fpn.out_channels)
        self.roi_heads = RoIHeads(recipe)

    @property
    def point_head(self) -> StandardPointHead | None:
        """The point head; None with the standard mask head."""
        head = self.roi_heads.mask_head
        return head.point_head if isinstance(head, PointRendMaskHead) else None

    def forward(self, x: Tensor, image_hw: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """As :meth:`canvas_stages`."""
        check_called_with(x)
        return self.canvas_stages(x, image_hw)

    def canvas_stages(
        self, x: Tensor, image_hw: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        """Compute every stage from the network input on, in order.

        Args:
            x: (1, 3, H, W) float, normalised, padded to a multiple of ``size_divisibility``.
            image_hw: height and width of the picture in ``x``, without its padding; boxes are
                clipped to it. All of ``x`` when absent.

        Returns:
            ``p2``..; ``proposals`` (P, 4) and ``proposal_logits`` (P,); ``boxes`` (R, 4) in pixels
            of ``x``, ``scores`` (R,), ``classes`` (R,) int64 by falling score, and what
            :meth:`mask_stages` gives.

        Raises:
            DeployError: more than one picture, or ``image_hw`` does not lie in ``x``.
        """
        if x.ndim != 4 or x.shape[0] != 1:
            raise DeployError(
                f"the reference takes one picture at a time, not an input of {list(x.shape)}",
                "call it once for each picture",
            )
        height, width = image_hw or (x.shape[2], x.shape[3])
        if not (1 <= height <= x.shape[2] and 1 <= width <= x.shape[3]):
            raise DeployError(
                f"image_hw {height, width} does not lie in a network input of {list(x.shape)}"
            )
        stages: dict[str, Tensor] = dict(self.backbone(x))
        proposals, logits = self.proposal_generator(stages, (height, width))
        stages["proposals"], stages["proposal_logits"] = proposals, logits
        class_logits, deltas = self.box_predictions(stages, proposals)
        found = detect(proposals, class_logits, deltas, (height, width), self.recipe.box_head)
        stages["boxes"], stages["scores"], stages["classes"] = found[:3]
        stages.update(self.mask_stages(stages, found.boxes, found.classes))
        return stages

    def box_predictions(self, features: dict[str, Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The box head's class logits (R, C + 1) and deltas (R, 4 * C or 4) for (R, 4) boxes."""
        spec = self.recipe.box_head
        pooled = _pooled(features, spec, boxes)
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        return logits, deltas

    def mask_stages(
        self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor
    ) -> dict[str, Tensor]:
        """Compute the mask head's stages for given boxes.

        Args:
            features: pyramid levels (1, C, h, w) by name.
            boxes: (R, 4) in pixels of the network input.
            classes: (R,) int64.

        Returns:
            ``mask_logits`` (R, 1, S, S), relative to the boxes; before it, with PointRend,
            ``coarse`` (R, C, side, side) and the stages of
            :func:`~pointrend_deploy.model.pointrend.subdivide_instances`.
        """
        starts = range(0, max(1, len(boxes)), ROIS_AT_ONCE)
        parts = [
            self._mask_stages(features, boxes[s : s + ROIS_AT_ONCE], classes[s : s + ROIS_AT_ONCE])
            for s in starts
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _mask_stages(
        self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor
    ) -> dict[str, Tensor]:
        head, spec, points = self.roi_heads.mask_head, self.recipe.mask_head, self.recipe.point_head
        if isinstance(spec, StandardMaskHeadSpec):
            return {"mask_logits": of_class(head(_pooled(features, spec, boxes)), classes)}
        if points is None or isinstance(head, StandardMaskHead):
            raise DeployError(f"recipe {self.recipe.name} has no point_head section")
        side = spec.pooler_resolution
        levels = [features[name] for name in spec.in_features]
        strides = [2 ** int(name[1:]) for name in spec.in_features]
        sampled = sample_in_boxes(levels, strides, boxes, regular_grid(boxes, side))
        coarse = head.coarse_head(torch.unflatten(sampled, 2, (side, side)))
        return {
            "coarse": coarse,
            **subdivide_instances(
                coarse,
                boxes,
                classes,
                [features[name] for name in points.in_features],
                [2 ** int(name[1:]) for name in points.in_features],
                head.point_head,
                subdivision_start(
                    spec.output_resolution, points.subdivision_steps, points.subdivision_points
                ),
                points.subdivision_points,
            ),
        }

    def picture_stages(
        self, x: Tensor, image_hw: tuple[int, int], out_hw: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Compute every stage of one picture.

        The arguments are those of :meth:`ReferenceModel.picture_stages`.

        Returns:
            The stages of :meth:`canvas_stages` and those of :func:`output_stages`.
        """
        stages = self.canvas_stages(x, image_hw)
        stages.update(output_stages(stages, image_hw, out_hw))
        return stages


def _pooled(
    features: dict[str, Tensor], spec: BoxHeadSpec | StandardMaskHeadSpec, boxes: Tensor
) -> Tensor:
    maps = [features[name] for name in spec.in_features]
    levels = [int(name[1:]) for name in spec.in_features]
    return pool_boxes(maps, levels, boxes, spec.pooler_resolution, spec.sampling_ratio)


def output_stages(
    stages: dict[str, Tensor], image_hw: tuple[int, int], out_hw: tuple[int, int]
) -> dict[str, Tensor]:
    """Detections at the output size, without those whose box is empty there.

    Args:
        stages: ``boxes``, ``scores``, ``classes`` and ``mask_logits`` of
            :meth:`InstanceModel.canvas_stages`.
        image_hw: size of the picture the boxes are in, without padding.
        out_hw: size of the masks.

    Returns:
        ``output_boxes`` (R', 4) in pixels of the output, ``output_scores`` (R',),
        ``output_classes`` (R',) int64 and ``masks`` (R', H, W) bool.

    Raises:
        DeployError: ``out_hw`` is not positive.
    """
    if min(out_hw) < 1:
        raise DeployError(f"out_hw must be two positive sizes, not {out_hw}")
    boxes = scale(stages["boxes"], image_hw, out_hw)
    solid = nonempty(boxes)
    boxes, probabilities = boxes[solid], stages["mask_logits"][solid, 0].sigmoid()
    return {
        "output_boxes": boxes,
        "output_scores": stages["scores"][solid],
        "output_classes": stages["classes"][solid],
        "masks": paste_masks(probabilities, boxes, out_hw, MASK_THRESHOLD),
    }


def build_instance_model(recipe: InstanceRecipe) -> InstanceModel:
    """The module of a recipe, in eval mode, with freshly initialised weights."""
    return InstanceModel(recipe).eval()


def load_instance_model(
    recipe: InstanceRecipe | str | Path,
    weights: str | Path,
    *,
    weights_key: str | None = None,
    ignore_extra: bool = False,
) -> InstanceModel:
    """As :func:`pointrend_deploy.model.load.load_model`, of a recipe known to be for instances."""
    spec = recipe if isinstance(recipe, InstanceRecipe) else load_instance_recipe(recipe)
    build = partial(build_instance_model, spec)
    return filled(build, read_weights(weights, weights_key), spec, ignore_extra)


def instance_model_from_tensors(
    recipe: InstanceRecipe, tensors: dict[str, Tensor]
) -> InstanceModel:
    """As :func:`load_instance_model`, from tensors already read: name to tensor, as in the file."""
    return filled(partial(build_instance_model, recipe), Weights(tensors), recipe)
