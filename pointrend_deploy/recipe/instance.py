"""Recipes of instance models: Mask R-CNN, with its standard mask head or with PointRend.

The same rules as in :mod:`pointrend_deploy.recipe.semantic`: typed, frozen, unknown keys refused,
values that contradict one another refused with the path of the key at fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from pointrend_deploy.recipe.parts import (
    Colour,
    EfficientNetLiteSpec,
    FPNSpec,
    InputSpec,
    Norm,
    Part,
    PointHeadSpec,
    ResNetSpec,
)

MAX_SAMPLING: Final = 16
"""Most samples in a bin of RoIAlign along each axis; detectron2's configurations have 0 or 2."""

Row = tuple[float, ...]
PerLevel = tuple[float | Row, ...]
"""A row of numbers for each level of a pyramid, or one row or plain numbers for every level."""


class InstanceClassesSpec(Part, frozen=True):
    """The classes of instances, in the order of the logits' channels, without background.

    Attributes:
        names: of the classes.
        colours: RGB, 0..255, one for each class, or none at all.
        category_ids: the ids that the data set's annotations use (COCO's have gaps), one for each
            class; when absent, class c has id c + 1.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    category_ids: tuple[int, ...] = ()


class RPNSpec(Part, frozen=True):
    """Region proposals (detectron2 StandardRPNHead, DefaultAnchorGenerator).

    Attributes:
        in_features: pyramid levels, finest first.
        anchor_sizes: square roots of anchor areas in pixels of the network input: a row for each
            level, or one row or plain numbers for every level.
        aspect_ratios: height / width of the anchors, in the same three forms.
        anchor_offset: distance of the first anchor's centre from the corner, in cells, in [0, 1).
        pre_nms_topk: proposals kept at each level before NMS.
        post_nms_topk: proposals kept of all levels together after NMS.
        nms_threshold: IoU above which the lower-scoring proposal of the same level is dropped.
        num_conv: 3x3 convolutions of the head that all levels share, each as wide as the pyramid.
    """

    in_features: tuple[str, ...] = ("p2", "p3", "p4", "p5", "p6")
    anchor_sizes: PerLevel = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    aspect_ratios: PerLevel = (0.5, 1.0, 2.0)
    anchor_offset: float = 0.0
    pre_nms_topk: int = 1000
    post_nms_topk: int = 1000
    nms_threshold: float = 0.7
    num_conv: int = 1

    @property
    def anchors(self) -> tuple[tuple[Row, Row], ...]:
        """Sizes and aspect ratios of each level, in a recipe that was checked."""
        levels = len(self.in_features)
        sizes, ratios = rows(self.anchor_sizes, levels), rows(self.aspect_ratios, levels)
        return tuple(zip(sizes, ratios, strict=True))

    @property
    def anchors_a_cell(self) -> int:
        """Number of anchors at every cell of every level, in a recipe that was checked."""
        sizes, ratios = self.anchors[0]
        return len(sizes) * len(ratios)


class BoxHeadSpec(Part, frozen=True):
    """Box head (detectron2 FastRCNNConvFCHead) and its detections.

    There is at least one layer, a convolution or a fully connected one.

    Attributes:
        in_features: pyramid levels RoIAlign chooses from, finest first, without a gap.
        pooler_resolution: side of the pooled features.
        sampling_ratio: RoIAlign's samples in a bin along each axis; 0 for a number that grows with
            the box.
        num_conv: number of 3x3 convolutions over the pooled features.
        channels: width of each convolution.
        norm: after each convolution.
        fc_dim: width of each fully connected layer.
        num_fc: number of fully connected layers, after the convolutions.
        class_agnostic: whether a proposal has one box instead of one for each class.
        class_scores: how class logits become scores: ``softmax`` over all classes and background,
            or ``sigmoid`` of each class alone (detectron2 ``ROI_BOX_HEAD.USE_SIGMOID_CE``). The
            predictor has a row for background in both; with ``sigmoid`` it decides nothing.
        box_weights: divisors of (dx, dy, dw, dh).
        score_threshold: a detection's score is strictly above it.
        nms_threshold: IoU above which the lower-scoring detection of the same class is dropped.
        detections: the largest number of detections in a picture.
    """

    in_features: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    pooler_resolution: int = 7
    sampling_ratio: int = 0
    num_conv: int = 0
    channels: int = 256
    norm: Norm = ""
    fc_dim: int = 1024
    num_fc: int = 2
    class_agnostic: bool = False
    class_scores: Literal["softmax", "sigmoid"] = "softmax"
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections: int = 100


class StandardMaskHeadSpec(Part, frozen=True, tag_field="kind", tag="standard"):
    """Mask R-CNN's own mask head (detectron2 MaskRCNNConvUpsampleHead).

    The masks have twice the pooled side. There is one for each class or, class-agnostic, one only.
    ``norm`` stands after each of the ``num_conv`` convolutions; the deconvolution has none.
    ``sampling_ratio`` is as in the box head.
    """

    in_features: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    pooler_resolution: int = 14
    sampling_ratio: int = 0
    channels: int = 256
    num_conv: int = 4
    norm: Norm = ""
    class_agnostic: bool = False


class CoarseMaskHeadSpec(Part, frozen=True, tag_field="kind", tag="pointrend"):
    """PointRend's coarse mask head (projects/PointRend ConvFCHead).

    For each class it predicts ``output_resolution`` squared logits, from features sampled at the
    cell centres of a regular grid of ``pooler_resolution`` squared.
    """

    in_features: tuple[str, ...] = ("p2",)
    pooler_resolution: int = 14
    channels: int = 256
    fc_dim: int = 1024
    num_fc: int = 2
    output_resolution: int = 7


class InstancePointHeadSpec(PointHeadSpec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Point head of an instance model, with the numbers of the training configuration.

    ``subdivision_steps`` and ``subdivision_points`` are detectron2's own values: while four times
    the grid's cells fit into the points, the loop starts one doubling later (7, 5 steps and 784
    points: it starts at 28 and takes 3 steps). ``class_agnostic``: one logit for each point.
    """

    coarse_in_every_layer: bool = True
    subdivision_steps: int = 5
    subdivision_points: int = 784
    class_agnostic: bool = False


class InstanceRecipe(Part, frozen=True, tag_field="task", tag="instance"):
    """An instance model as a user names it.

    A mask head of kind ``pointrend`` has a ``point_head``; one of kind ``standard`` has none.
    """

    name: str
    input: InputSpec
    classes: InstanceClassesSpec
    backbone: ResNetSpec | EfficientNetLiteSpec
    fpn: FPNSpec
    rpn: RPNSpec
    box_head: BoxHeadSpec
    mask_head: StandardMaskHeadSpec | CoarseMaskHeadSpec
    point_head: InstancePointHeadSpec | None = None
    description: str = ""

    @property
    def task(self) -> Literal["instance"]:
        """The recipe's ``task``."""
        return "instance"

    @property
    def num_classes(self) -> int:
        """Number of classes without background, C."""
        return len(self.classes.names)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's id of each class."""
        return self.classes.category_ids or tuple(range(1, self.num_classes + 1))

    @property
    def pyramid(self) -> tuple[str, ...]:
        """Levels of the feature pyramid, finest first."""
        levels = tuple("p" + name[3:] for name in self.fpn.in_features)
        return (*levels, f"p{int(levels[-1][1:]) + 1}") if self.fpn.top_level else levels

    @property
    def mask_side(self) -> int:
        """Side S of the mask logits."""
        if isinstance(self.mask_head, StandardMaskHeadSpec) or self.point_head is None:
            return 2 * self.mask_head.pooler_resolution
        side, steps = subdivision_start(
            self.mask_head.output_resolution,
            self.point_head.subdivision_steps,
            self.point_head.subdivision_points,
        )
        return int(side * 2**steps)


def subdivision_start(resolution: int, steps: int, points: int) -> tuple[int, int]:
    """Compute where the subdivision starts (PointRend mask_head.py, _init_point_head).

    A step whose doubled grid has no more cells than points would recompute all of them, so the
    grid before it is not needed.

    Args:
        resolution: side of the coarse grid.
        steps: doublings from there, as the training configuration counts them.
        points: recomputed in each step.

    Returns:
        Side of the first grid, and the steps after it. Steps below 0 mean that ``steps`` was too
        small for ``points``.
    """
    side = resolution
    while 4 * side**2 <= points:
        side, steps = 2 * side, steps - 1
    return side, steps


def rows(values: PerLevel, levels: int) -> tuple[Row, ...]:
    """The row of each level (detectron2 modeling/anchor_generator.py, ``_broadcast_params``).

    Args:
        values: in any of the three forms.
        levels: number of levels.

    Returns:
        As many rows as ``values`` gives, where that is more than one: a recipe's check compares
        their number with ``levels``. Numbers beside rows are left out: the check refuses those.
    """
    numbers = tuple(value for value in values if not isinstance(value, tuple))
    if numbers:
        return (numbers,) * levels
    found = tuple(value for value in values if isinstance(value, tuple))
    return found * levels if len(found) == 1 else found


def cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> list[list[float]]:
    """Compute the anchors about the origin: every size with every ratio, sizes outermost.

    Args:
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.

    Returns:
        (x1, y1, x2, y2) of each anchor, in pixels.
    """
    anchors = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            anchors.append([-width / 2.0, -height / 2.0, width / 2.0, height / 2.0])
    return anchors
