"""An instance graph from outside: the options of an export, its sizes, its inputs and outputs.

Everything here follows from the recipe, the canvas and the options alone; no model is needed.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pointrend_deploy.bundle.forms import Layout, MaskForm, Ops, PreprocessPlace
from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import Expected
from pointrend_deploy.graph.options import MAX_LEVELS, TOPK_LIMIT, check_graph
from pointrend_deploy.recipe.instance import (
    CoarseMaskHeadSpec,
    InstanceRecipe,
    StandardMaskHeadSpec,
    subdivision_start,
)

MODEL: Final = "model"
DETECTOR: Final = "detector"
MASKS: Final = "masks"
ROIS: Final = "R"
"""Name of the open size of the mask graph's inputs: the RoIs, from 1 to D."""
MaskOutput = MaskForm
Specs = dict[str, tuple[str, tuple[int | str, ...]]]


class InstanceGraphOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of an instance export; all else is in the recipe.

    Attributes:
        padded_hw: (Hp, Wp), the network grid; multiples of the recipe's ``size_divisibility``.
        batch: pictures a call, N; fixed.
        ops: ``plugin`` keeps the nodes of domain ``pointrend`` with their function bodies,
            ``native`` inlines the bodies, and gathers the rows the point head reads where the
            layout is single.
        detections: D, rows of the outputs: the D best detections of a picture.
        masks: ``prob`` float32 probabilities, ``prob-u8`` uint8, 255 p rounded (a half to the even
            number), ``logits`` float32.
        layout: ``single`` is one graph; ``split`` a detector and a graph of the masks of R
            detections of one picture, R from 1 to D.
        preprocess: ``outside`` takes ``image`` (N, 3, Hp, Wp) float32, normalised, then padded;
            ``in-graph`` takes ``image`` (N, Hp, Wp, 3) uint8. Both take ``extent`` (N, 2) int64,
            the (height, width) of the picture in the top left corner: boxes are clipped to it.
        opset: 18 or 19; see :class:`~pointrend_deploy.graph.options.GraphOptions`.
        stages: every intermediate is an output too, after the others.
    """

    padded_hw: tuple[int, int]
    batch: int = 1
    ops: Ops = "plugin"
    detections: int = 100
    masks: MaskOutput = "prob"
    layout: Layout = "single"
    preprocess: PreprocessPlace = "outside"
    opset: int = 18
    stages: bool = False

    def check(self, recipe: InstanceRecipe) -> None:
        """Refuse options for which no graph can be made.

        Raises:
            DeployError: naming the option and values that would do.
        """
        check_graph(
            self.padded_hw,
            self.batch,
            self.ops,
            self.preprocess,
            self.opset,
            recipe.input.size_divisibility,
        )
        mask_head = recipe.mask_head
        pooled = [("box_head", recipe.box_head.in_features)]
        if isinstance(mask_head, StandardMaskHeadSpec):
            pooled.append(("mask_head", mask_head.in_features))
        for table, names in pooled:
            if len(names) > MAX_LEVELS:
                raise DeployError(
                    f"`{table}.in_features` of {recipe.name} has {len(names)} levels; RoIAlign in "
                    f"a graph takes {MAX_LEVELS} pyramid levels at most",
                    "detectron2's own are p2 to p5",
                )
        smallest = min(size for sizes, _ in recipe.rpn.anchors for size in sizes)
        if min(self.padded_hw) < smallest:
            raise DeployError(
                f"the network grid {self.padded_hw[0]}x{self.padded_hw[1]} is smaller than one "
                f"anchor: the smallest is {smallest:g} pixels a side",
                "export for a larger picture",
            )
        if self.detections < 1:
            raise DeployError(
                f"detections must be at least 1, not {self.detections}",
                f"the recipe's own number is {recipe.box_head.detections}",
            )
        most, why = most_detections(recipe, self.padded_hw)
        if self.detections > most:
            raise DeployError(
                f"{self.detections} detections are too many: {why}", f"ask for {most} or fewer"
            )
        if self.masks not in ("prob", "prob-u8", "logits"):
            raise DeployError(f"masks is prob, prob-u8 or logits, not {self.masks}")
        if self.layout not in ("single", "split"):
            raise DeployError(f"layout is single or split, not {self.layout}")


def most_detections(recipe: InstanceRecipe, padded_hw: tuple[int, int]) -> tuple[int, str]:
    """Compute the largest number of detections of a graph, and say where it comes from.

    A detection is a proposal with a class, so there can be more detections than proposals.
    """
    rows, classes = proposal_rows(recipe, padded_hw), recipe.num_classes
    if rows * classes > TOPK_LIMIT:
        return TOPK_LIMIT, f"a graph orders {TOPK_LIMIT} at most, the limit of TensorRT's TopK"
    return rows * classes, (
        f"{recipe.name} keeps {rows} proposals at {padded_hw[0]}x{padded_hw[1]}, each with "
        f"{classes} classes"
    )


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
    for name in spec.in_features:
        height, width = sizes[name]
        kept.append(min(spec.pre_nms_topk, height * width * spec.anchors_a_cell))
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


def instance_expected(recipe: InstanceRecipe, options: InstanceGraphOptions) -> dict[str, Expected]:
    """Return the inputs and outputs of each graph: ``model``, or ``detector`` and ``masks``.

    Sizes are numbers, except for :data:`ROIS` in the mask graph.
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
