"""Loss of the demonstration semantic model: its coarse map and its most uncertain points.

Source: the PointRend paper, section 3.1 (training); detectron2 projects/PointRend/point_rend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.pointrend import point_sample, uncertainty
from pointrend_deploy.model.semantic.model import SemanticModel

OVERSAMPLE: Final = 3
"""Random candidates for each training point, k in the paper."""
IMPORTANCE: Final = 0.75
"""Share of the training points that are the most uncertain candidates, beta in the paper."""


def training_points(
    logits: Tensor, num_points: int, uncertainty_of: Callable[[Tensor], Tensor] = uncertainty
) -> Tensor:
    """Choose the points to train on: the most uncertain of many random ones, and some at random.

    Args:
        logits: (N, C, h, w) coarse logits of N pictures or RoIs.
        num_points: points of each, P.
        uncertainty_of: (N, C, P) logits -> (N, P), higher where the answer is less certain.

    Returns:
        (N, P, 2), (x, y) in [0, 1].
    """
    n = logits.shape[0]
    candidates = torch.rand(n, OVERSAMPLE * num_points, 2)
    uncertain = int(IMPORTANCE * num_points)
    scores = uncertainty_of(point_sample(logits.detach(), candidates))
    chosen = scores.topk(uncertain, dim=1).indices.unsqueeze(2).expand(-1, -1, 2)
    rest = torch.rand(n, num_points - uncertain, 2)
    return torch.cat((candidates.gather(1, chosen), rest), dim=1)


def semantic_loss(
    model: SemanticModel,
    x: Tensor,
    label: Tensor,
    *,
    num_points: int = 768,
) -> Tensor:
    """Return the cross entropy of the upsampled coarse logits, plus that of the points.

    The points are left out where the model has no point head.

    Args:
        model: in train mode.
        x: (N, 3, H, W) normalised network input.
        label: (N, H, W) int64.
        num_points: points a picture, as in :func:`training_points`.

    Returns:
        A scalar.
    """
    features = model.backbone(x)
    coarse = model.coarse_head.layers(features)
    upsampled = F.interpolate(coarse, size=label.shape[-2:], mode="bilinear", align_corners=False)
    loss = F.cross_entropy(upsampled, label)
    spec = model.recipe.point_head
    if spec is None:
        return loss
    if model.point_head is None:
        raise DeployError(f"the model of recipe {model.recipe.name} lacks its point head")
    points = training_points(coarse, num_points)
    fine = torch.cat([point_sample(features[name], points) for name in spec.in_features], dim=1)
    logits = model.point_head(fine, point_sample(coarse, points))
    return loss + F.cross_entropy(logits, labels_at(label, points))


def labels_at(label: Tensor, points: Tensor) -> Tensor:
    """Label of the pixel each point lies in: (N, H, W), (N, P, 2) in [0, 1] -> (N, P) int64."""
    height, width = label.shape[-2:]
    column = (points[..., 0] * width).long().clamp_(0, width - 1)
    row = (points[..., 1] * height).long().clamp_(0, height - 1)
    return label.flatten(1).gather(1, row * width + column)
