"""Sizes of an instance graph, from the recipe and the canvas alone."""

from __future__ import annotations

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.options import TOPK_LIMIT
from pointrend_deploy.instance_recipe import InstanceRecipe, StandardMaskHeadSpec


def pyramid_hw(recipe: InstanceRecipe, padded_hw: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Height and width of every level of the pyramid for a network input of ``padded_hw``."""
    height, width = padded_hw
    sizes: dict[str, tuple[int, int]] = {}
    for name in recipe.pyramid:
        level = int(name[1:])
        # A top level takes every second cell of the one before it, so it rounds up.
        sizes[name] = (-(-height // 2**level), -(-width // 2**level))
    return sizes


def anchors_kept(recipe: InstanceRecipe, padded_hw: tuple[int, int]) -> tuple[int, ...]:
    """Anchors each level sends into NMS: ``pre_nms_topk``, or all of a level with fewer.

    Raises:
        DeployError: more than TensorRT's TopK takes.
    """
    spec, sizes = recipe.rpn, pyramid_hw(recipe, padded_hw)
    kept = []
    for name, anchor_sizes in zip(spec.in_features, spec.anchor_sizes, strict=True):
        height, width = sizes[name]
        anchors = height * width * len(anchor_sizes) * len(spec.aspect_ratios)
        kept.append(min(spec.pre_nms_topk, anchors))
    if max(kept) > TOPK_LIMIT:
        raise DeployError(
            f"`rpn.pre_nms_topk` of {recipe.name} keeps {max(kept)} anchors of a level; a graph "
            f"takes at most {TOPK_LIMIT}",
            f"set rpn.pre_nms_topk to {TOPK_LIMIT} or less; detectron2's own is 1000",
        )
    return tuple(kept)


def proposal_rows(recipe: InstanceRecipe, padded_hw: tuple[int, int]) -> int:
    """Rows of proposals, P: ``post_nms_topk``, or fewer where there are fewer anchors.

    Raises:
        DeployError: more than TensorRT's TopK takes.
    """
    rows = min(recipe.rpn.post_nms_topk, sum(anchors_kept(recipe, padded_hw)))
    if rows > TOPK_LIMIT:
        raise DeployError(
            f"`rpn.post_nms_topk` of {recipe.name} keeps {rows} proposals; a graph takes at most "
            f"{TOPK_LIMIT}",
            f"set rpn.post_nms_topk to {TOPK_LIMIT} or less; detectron2's own is 1000",
        )
    return rows


def mask_levels(recipe: InstanceRecipe) -> tuple[str, ...]:
    """Levels the mask part reads, each once, in the order it takes them."""
    if isinstance(recipe.mask_head, StandardMaskHeadSpec) or recipe.point_head is None:
        return recipe.mask_head.in_features
    return tuple(dict.fromkeys((*recipe.mask_head.in_features, *recipe.point_head.in_features)))
