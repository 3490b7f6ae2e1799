"""The instance subdivision loop (paper section 3.1; detectron2 projects/PointRend mask_head.py).

This is the reference: it keeps detectron2's form, all classes carried along. The cheaper, equal
forms live in graph/.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointrend_deploy.model.mask_head import of_class
from pointrend_deploy.model.point_head import StandardPointHead
from pointrend_deploy.model.point_ops import cell_centres, most_uncertain_points, point_sample
from pointrend_deploy.model.subdivision import double


def regular_grid(boxes: Tensor, side: int) -> Tensor:
    """Cell centres of a side x side grid, the same for each of (R, 4) boxes: (R, side**2, 2)."""
    cells = torch.arange(side * side, device=boxes.device).unsqueeze(0)
    return cell_centres(cells, side, side, boxes.dtype).expand(boxes.shape[0], -1, -1)


def sample_in_boxes(
    features: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, points: Tensor
) -> Tensor:
    """Sample feature maps of one picture at points given relative to boxes.

    Args:
        features: (1, C_i, h_i, w_i) each.
        strides: pixels of the network input a cell, one a feature map.
        boxes: (R, 4) in pixels of the network input.
        points: (R, P, 2), (x, y) in [0, 1] of the box.

    Returns:
        (R, sum of C_i, P).
    """
    corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    in_image = points * size + corner
    sampled = []
    for feature, stride in zip(features, strides, strict=True):
        height, width = feature.shape[2:]
        in_map = in_image / in_image.new_tensor([width * stride, height * stride])
        values = point_sample(feature, in_map.reshape(1, -1, 2))
        sampled.append(values.view(feature.shape[1], *points.shape[:2]).transpose(0, 1))
    return torch.cat(sampled, dim=1)


def subdivide_instances(
    coarse: Tensor,
    boxes: Tensor,
    classes: Tensor,
    features: Sequence[Tensor],
    strides: Sequence[int],
    point_head: StandardPointHead,
    start: tuple[int, int],
    num_points: int,
) -> dict[str, Tensor]:
    """Masks of every box: a first grid of points, then the most uncertain ones of doubled grids.

    Uncertainty is minus the absolute logit of the predicted class.

    Args:
        coarse: (R, C, side, side) coarse mask logits; only ever sampled from.
        boxes: (R, 4) in pixels of the network input.
        classes: (R,) int64, the predicted classes.
        features: feature maps (1, C_i, h_i, w_i), concatenated over channels at each point.
        strides: of the feature maps.
        point_head: the MLP.
        start: side of the first grid and number of steps after it; see
            :func:`pointrend_deploy.instance_recipe.subdivision_start`.
        num_points: most points recomputed a step.

    Returns:
        ``step0.point_logits`` (R, 1, side**2) of the predicted class, row by row; for each step
        after it ``step<t>.indices`` (R, K) int64 in ascending order and ``step<t>.point_logits``
        (R, 1, K) in that order; last ``mask_logits`` (R, 1, S, S), S = side * 2**steps.
    """
    side, steps = start
    points = regular_grid(boxes, side)
    fine = sample_in_boxes(features, strides, boxes, points)
    point_logits = point_head(fine, point_sample(coarse, points))
    logits = torch.unflatten(point_logits, 2, (side, side))
    stages = {"step0.point_logits": of_class(point_logits, classes)}
    for step in range(1, steps + 1):
        logits = double(logits)
        r, c, h, w = logits.shape
        indices, points = most_uncertain_points(-of_class(logits, classes)[:, 0].abs(), num_points)
        fine = sample_in_boxes(features, strides, boxes, points)
        point_logits = point_head(fine, point_sample(coarse, points))
        where = indices.unsqueeze(1).expand(-1, c, -1)
        logits = logits.reshape(r, c, h * w).scatter(2, where, point_logits).view(r, c, h, w)
        stages[f"step{step}.indices"] = indices
        stages[f"step{step}.point_logits"] = of_class(point_logits, classes)
    stages["mask_logits"] = of_class(logits, classes)
    return stages
