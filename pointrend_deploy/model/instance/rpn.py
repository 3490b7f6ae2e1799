"""Region proposal network over a feature pyramid (Ren et al. 2015; Lin et al. 2017).

Source: detectron2 modeling/proposal_generator/rpn.py and proposal_utils.py, and
anchor_generator.py for the anchors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pointrend_deploy.model.backbone.layers import Conv2d
from pointrend_deploy.model.instance.boxes import (
    apply_deltas,
    by_score,
    clip,
    grouped_nms,
    nonempty,
)
from pointrend_deploy.recipe.instance import (
    RPNSpec,
    cell_anchors,
)

UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def grid_anchors(
    sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    grid_hw: tuple[int, int],
    stride: int,
    offset: float,
    like: Tensor,
) -> Tensor:
    """Place the anchors of one level at every cell of its grid.

    Args:
        sizes: as for :func:`cell_anchors`.
        aspect_ratios: as for :func:`cell_anchors`.
        grid_hw: height and width of the level's feature map.
        stride: pixels of the network input a cell.
        offset: of the first centre from the corner, in cells.
        like: gives dtype and device.

    Returns:
        (H * W * A, 4): row by row, and at each cell its A anchors.
    """
    height, width = grid_hw
    base = like.new_tensor(cell_anchors(sizes, aspect_ratios))
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + offset) * stride
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + offset) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((x, y, x, y), dim=2).view(-1, 1, 4)
    return (centres + base).reshape(-1, 4)


class RPNHead(nn.Module):
    """3x3 convolutions and two 1x1 ones, shared by all levels.

    A single 3x3 is called ``conv``, several are ``conv.conv0`` and so on, as in detectron2.
    """

    def __init__(self, channels: int, num_conv: int, num_anchors: int) -> None:
        super().__init__()
        convs = {f"conv{n}": Conv2d(channels, channels, 3, relu=True) for n in range(num_conv)}
        self.conv = convs["conv0"] if num_conv == 1 else nn.Sequential(OrderedDict(convs))
        self.objectness_logits = Conv2d(channels, num_anchors, 1)
        self.anchor_deltas = Conv2d(channels, 4 * num_anchors, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions for every anchor of one level, in the order of the anchors.

        Args:
            feature: (N, C, H, W).

        Returns:
            Objectness logits (N, H * W * A) and deltas (N, H * W * A, 4).
        """
        hidden = self.conv(feature)
        logits = self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(hidden).permute(0, 2, 3, 1).reshape(len(feature), -1, 4)
        return logits, deltas


class RPN(nn.Module):
    """Proposals of a picture: anchors, their predictions and the selection among them."""

    def __init__(self, spec: RPNSpec, channels: int) -> None:
        super().__init__()
        self.spec = spec
        self.rpn_head = RPNHead(channels, spec.num_conv, spec.anchors_a_cell)

    def anchors(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The anchors of every level, (H * W * A, 4) each, for feature maps of these sizes."""
        spec = self.spec
        return [
            grid_anchors(
                sizes,
                ratios,
                (features[name].shape[2], features[name].shape[3]),
                2 ** int(name[1:]),
                spec.anchor_offset,
                features[name],
            )
            for name, (sizes, ratios) in zip(spec.in_features, spec.anchors, strict=True)
        ]

    def forward(
        self, features: dict[str, Tensor], image_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Propose boxes of one picture.

        The best ``pre_nms_topk`` a level, decoded and clipped to the picture, empty ones and those
        that are not finite dropped, then NMS within each level and the best ``post_nms_topk``.

        Args:
            features: pyramid levels (1, C, h, w) by name.
            image_hw: size of the picture without padding, in pixels of the network input.

        Returns:
            Boxes (P, 4) and objectness logits (P,), by falling logit; P may be 0.
        """
        spec = self.spec
        boxes, scores, levels = [], [], []
        for level, (name, anchors) in enumerate(
            zip(spec.in_features, self.anchors(features), strict=True)
        ):
            logits, deltas = (prediction[0] for prediction in self.rpn_head(features[name]))
            best = by_score(logits)[: spec.pre_nms_topk]
            boxes.append(apply_deltas(deltas[best], anchors[best], UNIT_WEIGHTS)[:, 0])
            scores.append(logits[best])
            levels.append(torch.full_like(best, level))
        box, score, group = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
        finite = box.isfinite().all(dim=1) & score.isfinite()
        box, score, group = clip(box[finite], image_hw), score[finite], group[finite]
        solid = nonempty(box)
        box, score, group = box[solid], score[solid], group[solid]
        kept = grouped_nms(box, score, group, spec.nms_threshold, spec.post_nms_topk)
        return box[kept], score[kept]
