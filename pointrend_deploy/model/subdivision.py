"""The semantic subdivision loop (paper section 3.1; detectron2 PointRendSemSegHead.forward).

This is the reference: it keeps detectron2's form. The cheaper, equal forms live in graph/.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.model.point_head import StandardPointHead
from pointrend_deploy.model.point_ops import most_uncertain_points, point_sample, uncertainty


def double(logits: Tensor) -> Tensor:
    """Bilinear upsampling by 2, clamped at the edge: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)


def subdivide(
    coarse: Tensor,
    fine_features: Sequence[Tensor],
    point_head: StandardPointHead,
    steps: int,
    num_points: int,
) -> dict[str, Tensor]:
    """Refine coarse logits: each step doubles the grid and recomputes its most uncertain points.

    Args:
        coarse: (N, C, h, w) coarse logits; sampled from in every step, never the refined ones.
        fine_features: feature maps (N, C_i, h_i, w_i), concatenated over channels at each point.
        point_head: the MLP.
        steps: number of doublings.
        num_points: most points recomputed a step.

    Returns:
        ``step<t>.indices`` (N, K) int64 in ascending order, ``step<t>.point_logits`` (N, C, K) in
        that order, and last ``logits`` (N, C, h * 2**steps, w * 2**steps).
    """
    stages: dict[str, Tensor] = {}
    logits = coarse
    for step in range(steps):
        logits = double(logits)
        n, c, h, w = logits.shape
        indices, points = most_uncertain_points(uncertainty(logits), num_points)
        fine = torch.cat([point_sample(feature, points) for feature in fine_features], dim=1)
        point_logits = point_head(fine, point_sample(coarse, points))
        where = indices.unsqueeze(1).expand(-1, c, -1)
        logits = logits.reshape(n, c, h * w).scatter(2, where, point_logits).view(n, c, h, w)
        stages[f"step{step}.indices"] = indices
        stages[f"step{step}.point_logits"] = point_logits
    stages["logits"] = logits
    return stages
