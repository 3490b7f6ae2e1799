"""What a deployable instance graph is asked to be."""

from __future__ import annotations

from typing import Literal

import msgspec

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.instance_sizes import proposal_rows
from pointrend_deploy.graph.options import MAX_LEVELS, check_graph
from pointrend_deploy.instance_recipe import InstanceRecipe, StandardMaskHeadSpec

MaskOutput = Literal["prob", "prob-u8", "logits"]
Layout = Literal["single", "split"]


class InstanceGraphOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Choices of an export; the recipe says everything else.

    Attributes:
        padded_hw: (Hp, Wp), the network grid; multiples of the recipe's ``size_divisibility``.
        batch: pictures a call, N; fixed.
        ops: ``plugin`` keeps the nodes of domain ``pointrend`` with their function bodies,
            ``native`` inlines the bodies, and gathers the rows the point head reads where the
            layout is single.
        detections: rows of the outputs, D: the best that many detections of a picture.
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
    ops: Literal["plugin", "native"] = "plugin"
    detections: int = 100
    masks: MaskOutput = "prob"
    layout: Layout = "single"
    preprocess: Literal["outside", "in-graph"] = "outside"
    opset: int = 18
    stages: bool = False

    def check(self, recipe: InstanceRecipe) -> None:
        """Refuse choices no graph can be made for.

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
        smallest = min(size for sizes in recipe.rpn.anchor_sizes for size in sizes)
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
        rows = proposal_rows(recipe, self.padded_hw)
        if self.detections > rows:
            raise DeployError(
                f"{self.detections} detections are over the proposals: {recipe.name} keeps "
                f"{rows} at {self.padded_hw[0]}x{self.padded_hw[1]}",
                f"ask for {rows} or fewer",
            )
        if self.masks not in ("prob", "prob-u8", "logits"):
            raise DeployError(f"masks is prob, prob-u8 or logits, not {self.masks}")
        if self.layout not in ("single", "split"):
            raise DeployError(f"layout is single or split, not {self.layout}")
