"""Names, types and shapes of an instance graph's inputs and outputs, from recipe and options."""

from __future__ import annotations

from typing import Final

from pointrend_deploy.graph.contract import Expected
from pointrend_deploy.graph.instance_options import InstanceGraphOptions
from pointrend_deploy.graph.instance_sizes import mask_levels, proposal_rows, pyramid_hw
from pointrend_deploy.instance_recipe import (
    CoarseMaskHeadSpec,
    InstanceRecipe,
    subdivision_start,
)

MODEL: Final = "model"
DETECTOR: Final = "detector"
MASKS: Final = "masks"
ROIS: Final = "R"
"""Name of the size of the mask graph's inputs that is left open, from 1 to D."""

Specs = dict[str, tuple[str, tuple[int | str, ...]]]


def instance_expected(recipe: InstanceRecipe, options: InstanceGraphOptions) -> dict[str, Expected]:
    """What each graph of an export must be: under ``model``, or ``detector`` and ``masks``.

    Sizes are numbers but for :data:`ROIS` in the mask graph's.
    """
    image = image_inputs(options)
    found = detection_outputs(options)
    masks: Specs = {"masks": _masks(recipe, options, (options.batch, options.detections))}
    stages = detector_stages(recipe, options)
    if options.layout == "single":
        outputs = {**found, **masks}
        if options.stages:
            outputs |= stages | mask_stages(recipe, (options.batch, options.detections))
        return {MODEL: _expected(options, image, outputs)}
    levels = {name: stages.pop(name) for name in mask_levels(recipe)}
    rois: Specs = {
        "boxes": ("float32", (ROIS, 4)),
        "classes": ("int64", (ROIS,)),
        **{name: (dtype, (1, *shape[1:])) for name, (dtype, shape) in levels.items()},
    }
    patches: Specs = {"masks": _masks(recipe, options, (ROIS,))}
    detector = {**found, **levels}
    if options.stages:
        detector |= stages
        patches |= mask_stages(recipe, (ROIS,))
    return {
        DETECTOR: _expected(options, image, detector),
        MASKS: _expected(options, rois, patches),
    }


def image_inputs(options: InstanceGraphOptions) -> Specs:
    """``image`` and ``extent``."""
    height, width = options.padded_hw
    extent: Specs = {"extent": ("int64", (options.batch, 2))}
    if options.preprocess == "in-graph":
        return {"image": ("uint8", (options.batch, height, width, 3)), **extent}
    return {"image": ("float32", (options.batch, 3, height, width)), **extent}


def detection_outputs(options: InstanceGraphOptions) -> Specs:
    """``num_detections``, ``boxes``, ``scores`` and ``classes``."""
    batch, rows = options.batch, options.detections
    return {
        "num_detections": ("int64", (batch,)),
        "boxes": ("float32", (batch, rows, 4)),
        "scores": ("float32", (batch, rows)),
        "classes": ("int64", (batch, rows)),
    }


def detector_stages(recipe: InstanceRecipe, options: InstanceGraphOptions) -> Specs:
    """The levels of the pyramid, ``proposals`` and ``proposal_count``."""
    rows = proposal_rows(recipe, options.padded_hw)
    levels: Specs = {
        name: ("float32", (options.batch, recipe.fpn.out_channels, *size))
        for name, size in pyramid_hw(recipe, options.padded_hw).items()
    }
    return {
        **levels,
        "proposals": ("float32", (options.batch, rows, 4)),
        "proposal_count": ("int64", (options.batch,)),
    }


def mask_stages(recipe: InstanceRecipe, rows: tuple[int | str, ...]) -> Specs:
    """Stages of the masks; ``rows`` are the leading sizes, (N, D) or (R,)."""
    side = recipe.mask_side
    stages: Specs = {}
    coarse, points = recipe.mask_head, recipe.point_head
    if isinstance(coarse, CoarseMaskHeadSpec) and points is not None:
        small = coarse.output_resolution
        count = points.subdivision_points
        start, steps = subdivision_start(small, points.subdivision_steps, count)
        stages["coarse"] = ("float32", (*rows, recipe.num_classes, small, small))
        stages["step0.point_logits"] = ("float32", (*rows, 1, start * start))
        for step in range(1, steps + 1):
            stages[f"step{step}.indices"] = ("int64", (*rows, count))
            stages[f"step{step}.point_logits"] = ("float32", (*rows, 1, count))
    stages["mask_logits"] = ("float32", (*rows, side, side))
    return stages


def _masks(
    recipe: InstanceRecipe, options: InstanceGraphOptions, rows: tuple[int | str, ...]
) -> tuple[str, tuple[int | str, ...]]:
    dtype = "uint8" if options.masks == "prob-u8" else "float32"
    return dtype, (*rows, recipe.mask_side, recipe.mask_side)


def _expected(options: InstanceGraphOptions, inputs: Specs, outputs: Specs) -> Expected:
    return Expected(inputs=inputs, outputs=outputs, opset=options.opset, ops=options.ops)
