"""The mask part of the deployable instance graph: from the pyramid and the boxes to the masks.

Two implementations of one call, ``masks(boxes, classes, *features)``: Mask R-CNN's own head and
PointRend's. Both are the function of ``InstanceModel.mask_stages`` with one plane a RoI, that of
the predicted class, in place of one a class:

- :class:`StandardMasks`: the predictor is a 1x1 convolution with one row a class, and only the
  predicted class's row is multiplied;
- :class:`InstanceMasks`: with the rewrites of points.py, one plane is upsampled, searched for
  uncertain points and written to. All points of all RoIs are one point set on the one map of the
  picture, whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.cost import WORTH, InstanceWork, ProjectionPlan, plan_instance
from pointrend_deploy.graph.instance.points import InstancePointHead, PointLogits, centres
from pointrend_deploy.graph.instance.rows import RowLogits, RowPointHead
from pointrend_deploy.graph.ops import most_uncertain, pool, sample
from pointrend_deploy.model.instance.mask_head import PointRendMaskHead, StandardMaskHead
from pointrend_deploy.recipe.instance import (
    CoarseMaskHeadSpec,
    InstancePointHeadSpec,
    StandardMaskHeadSpec,
    subdivision_start,
)

ROIS_AT_ONCE: Final = 4
"""RoIs whose points are computed together: fewer stay nearer to a CPU's cores, in more nodes."""
MOST_GROUPS: Final = 25
"""Most such groups in a graph: the time of tracing grows with the square of the nodes."""


class StandardMasks(nn.Module):
    """Mask R-CNN's mask head for any number of RoIs of one picture.

    Args:
        head: the reference's.
        spec: its recipe's.
    """

    def __init__(self, head: StandardMaskHead, spec: StandardMaskHeadSpec) -> None:
        super().__init__()
        self.features = spec.in_features
        self.side = spec.pooler_resolution
        self.sampling_ratio = spec.sampling_ratio
        self.layers = nn.ModuleDict(
            {
                name: head.get_submodule(name)
                for name in (f"mask_fcn{number + 1}" for number in range(spec.num_conv))
            }
        )
        self.deconv = head.deconv
        weight, bias = head.predictor.weight.detach().flatten(1), head.predictor.bias
        offset = torch.zeros_like(weight[:, 0]) if bias is None else bias.detach()
        self.register_buffer("rows", weight.contiguous())
        self.register_buffer("bias", offset.unsqueeze(1))

    def forward(self, boxes: Tensor, classes: Tensor, *features: Tensor) -> dict[str, Tensor]:
        """Compute the masks of boxes.

        Args:
            boxes: (R, 4) in pixels of the network input.
            classes: (R,) int64, in [0, C).
            features: (1, C, h, w) each, in the order of :attr:`features`.

        Returns:
            ``mask_logits`` (R, S, S), relative to the boxes.
        """
        first = int(self.features[0][1:])
        x = pool(boxes.unsqueeze(0), features, first, self.side, self.sampling_ratio)
        for layer in self.layers.values():
            x = layer(x)
        x = F.relu(self.deconv(x))
        weight, bias = self.get_buffer("rows"), self.get_buffer("bias")
        if weight.shape[0] > 1:
            weight = weight.index_select(0, classes).unsqueeze(1)
            bias = bias.index_select(0, classes).unsqueeze(1)
        logits = weight @ x.flatten(2) + bias
        side = x.shape[2]
        return {"mask_logits": logits.reshape(boxes.shape[0], side, side)}


class InstanceMasks(nn.Module):
    """PointRend's mask head for a fixed number of detections, or any where all go together.

    Rows past the last detection (a box of zeros, class 0) are computed like any other: their masks
    are finite, mean nothing, and change no other row.

    Args:
        head: the reference's mask head.
        coarse: its recipe's coarse head.
        points: its recipe's point head.
        rois: R, at least 1.
        feature_hw: height and width of each level named in :attr:`features`.
        channels: of each level.
        rois_at_once: most RoIs whose points are computed together.
        gathered: sample the fine maps by gathering rows (points.py), not by a PointRendSample node:
            for a runtime without plugins. Needs memory for four rows a point of the RoIs together.
        rows: compute all points of all RoIs as one tensor of rows (rows.py), for an engine. The
            RoIs may then be of several pictures; ``rois_at_once`` and ``gathered`` say nothing.

    Raises:
        DeployError: a number of RoIs below 1, sizes that do not fit :attr:`features`, or more
            points a step than its grid has cells.
    """

    def __init__(
        self,
        head: PointRendMaskHead,
        coarse: CoarseMaskHeadSpec,
        points: InstancePointHeadSpec,
        rois: int,
        feature_hw: Sequence[tuple[int, int]],
        channels: int = 256,
        rois_at_once: int = ROIS_AT_ONCE,
        gathered: bool = False,
        rows: bool = False,
    ) -> None:
        super().__init__()
        if min(rois, rois_at_once) < 1:
            raise DeployError(f"a mask graph is for at least 1 RoI, not {min(rois, rois_at_once)}")
        self.features = tuple(dict.fromkeys((*coarse.in_features, *points.in_features)))
        if len(feature_hw) != len(self.features):
            raise DeployError(
                f"{len(feature_hw)} feature sizes for the levels {list(self.features)}"
            )
        self.coarse_head = head.coarse_head
        self.coarse_spec = coarse
        self.point_spec = points
        self.rois = rois
        self.gathered = gathered
        count = -(-rois // rois_at_once)
        self.groups = [rois * (n + 1) // count - rois * n // count for n in range(count)]
        self.start, self.steps = subdivision_start(
            coarse.output_resolution, points.subdivision_steps, points.subdivision_points
        )
        if self.steps < 0:
            raise DeployError(
                f"{points.subdivision_points} points recompute every cell of every step"
            )
        if gathered and min(map(min, feature_hw)) < 2:
            raise DeployError("rows are gathered from feature maps of at least 2 x 2 cells")
        sizes = dict(zip(self.features, feature_hw, strict=True))
        self.plan = self._plan([sizes[name] for name in points.in_features], channels)
        self.rows = rows
        self.point_head: RowPointHead | InstancePointHead
        if rows:
            if len(points.in_features) != 1:
                raise DeployError("rows are sampled from one feature map")
            side = coarse.output_resolution
            self.point_head = RowPointHead(head.point_head, channels, side)
            return
        self.point_head = InstancePointHead(
            head.point_head,
            [channels] * len(points.in_features),
            coarse.output_resolution,
            self.plan,
        )

    def _plan(self, fine_hw: list[tuple[int, int]], channels: int) -> ProjectionPlan:
        spec = self.point_spec
        return plan_instance(
            InstanceWork(
                fine=tuple((channels, height * width) for height, width in fine_hw),
                classes=self.coarse_head.output_shape[0],
                coarse_cells=self.coarse_spec.output_resolution**2,
                width=spec.fc_dim,
                hidden_layers=spec.num_fc,
                coarse_in_every_layer=spec.coarse_in_every_layer,
                rois=self.rois,
                points=self.start**2 + self.steps * spec.subdivision_points,
            ),
            # Gathering reads cells of all channels, so a map is copied where it is not projected.
            1.0 if self.gathered else WORTH,
        )

    def forward(self, boxes: Tensor, classes: Tensor, *features: Tensor) -> dict[str, Tensor]:
        """Compute the stages of the masks, in the reference's order and under its names.

        The arguments are those of :meth:`StandardMasks.forward`; with ``rows`` the features may be
        (N, C, h, w), of N pictures with R / N RoIs each, in turn.

        Returns:
            ``coarse`` (R, C, side, side), ``step0.point_logits`` (R, 1, start**2),
            ``step<t>.indices`` (R, K) int64, most uncertain first, ``step<t>.point_logits``
            (R, 1, K) in that order, and ``mask_logits`` (R, S, S), relative to the boxes.
        """
        maps = dict(zip(self.features, features, strict=True))
        coarse = self._coarse(boxes, maps)
        points = self._point_logits(boxes, classes, coarse, maps)
        rois, count = boxes.shape[0], self.point_spec.subdivision_points
        side = self.start
        cells = torch.arange(side * side).unsqueeze(0)
        point_logits = points.at(*centres(cells, side, boxes.dtype))
        stages = {"coarse": coarse, "step0.point_logits": point_logits}
        # RoIs are the channels of the plane: runtimes run Resize over channels in parallel.
        logits = point_logits.reshape(1, rois, side, side)
        for step in range(1, self.steps + 1):
            side *= 2
            logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
            flat = logits.reshape(rois, side * side)
            indices = most_uncertain(-flat.abs(), count)
            point_logits = points.at(*centres(indices, side, flat.dtype))
            flat = flat.scatter(1, indices, point_logits.reshape(rois, count))
            logits = flat.reshape(1, rois, side, side)
            stages[f"step{step}.indices"] = indices
            stages[f"step{step}.point_logits"] = point_logits
        stages["mask_logits"] = logits.reshape(rois, side, side)
        return stages

    def _point_logits(
        self, boxes: Tensor, classes: Tensor, coarse: Tensor, maps: dict[str, Tensor]
    ) -> PointLogits | RowLogits:
        names, head = self.point_spec.in_features, self.point_head
        fine, strides = [maps[name] for name in names], _strides(names)
        if isinstance(head, RowPointHead):
            return RowLogits(head, boxes, classes, coarse, fine[0], strides[0])
        return PointLogits(head, boxes, classes, coarse, fine, strides, self.groups, self.gathered)

    def _coarse(self, boxes: Tensor, maps: dict[str, Tensor]) -> Tensor:
        side, names = self.coarse_spec.pooler_resolution, self.coarse_spec.in_features
        cells = torch.arange(side * side).unsqueeze(0)
        points = torch.stack(centres(cells, side, boxes.dtype), dim=-1)
        found = torch.cat(
            sample_boxes([maps[name] for name in names], _strides(names), boxes, points), dim=1
        )
        pooled = torch.unflatten(found, 2, (side, side))
        coarse: Tensor = self.coarse_head(pooled)
        return coarse


def rois_together(rois: int, batch: int) -> int:
    """How many RoIs a graph computes together in one group of nodes.

    Args:
        rois: of one picture.
        batch: number of pictures, each of which has its own groups.
    """
    return max(ROIS_AT_ONCE, -(-rois * batch // MOST_GROUPS))


def sample_boxes(
    maps: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, points: Tensor
) -> list[Tensor]:
    """Sample maps at points relative to boxes: one point set for all boxes of a picture.

    Args:
        maps: (N, C_i, h_i, w_i) each.
        strides: pixels of the network input a cell, one a map.
        boxes: (R, 4) in pixels of the network input, R / N of each picture in turn.
        points: (R, P, 2) or, the same for every box, (1, P, 2); (x, y) in [0, 1] of the box.

    Returns:
        (R, C_i, P) each.
    """
    rois, count = boxes.shape[0], points.shape[1]
    corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    in_image = points * size + corner
    sampled = []
    for each, stride in zip(maps, strides, strict=True):
        extent = in_image.new_tensor([each.shape[3] * stride, each.shape[2] * stride])
        pictures, channels = each.shape[:2]
        own = rois // pictures
        in_map = (in_image / extent).reshape(pictures, own * count, 2)
        found = sample(each, in_map)
        if pictures == 1:
            sampled.append(found.reshape(channels, rois, count).transpose(0, 1))
        else:
            found = found.reshape(pictures, channels, own, count)
            sampled.append(found.transpose(1, 2).flatten(0, 1))
    return sampled


def _strides(names: Sequence[str]) -> list[int]:
    return [2 ** int(name[1:]) for name in names]
