"""What the demonstration model is trained on: the coarse map and the uncertain points.

Source: the PointRend paper, section 3.1 (training); detectron2 projects/PointRend/point_rend.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.pointrend import point_sample, uncertainty
from pointrend_deploy.model.semantic.model import SemanticModel


def training_points(coarse: Tensor, num_points: int, oversample: int, importance: float) -> Tensor:
    """Points to train on: the most uncertain of many random ones, and some at random.

    Args:
        coarse: (N, C, h, w) coarse logits.
        num_points: points an image, P.
        oversample: k; ``k * P`` candidates are drawn uniformly.
        importance: beta; the share of P that is taken from the most uncertain candidates.

    Returns:
        (N, P, 2), (x, y) in [0, 1].
    """
    n = coarse.shape[0]
    candidates = torch.rand(n, oversample * num_points, 2)
    uncertain = int(importance * num_points)
    scores = uncertainty(point_sample(coarse.detach(), candidates))
    chosen = scores.topk(uncertain, dim=1).indices.unsqueeze(2).expand(-1, -1, 2)
    return torch.cat(
        (candidates.gather(1, chosen), torch.rand(n, num_points - uncertain, 2)), dim=1
    )


def semantic_loss(
    model: SemanticModel,
    x: Tensor,
    label: Tensor,
    *,
    num_points: int = 768,
    oversample: int = 3,
    importance: float = 0.75,
) -> Tensor:
    """Cross entropy of the upsampled coarse logits, plus that of the points where there is a head.

    Args:
        model: in train mode.
        x: (N, 3, H, W) normalised network input.
        label: (N, H, W) int64.
        num_points: as in :func:`training_points`, and so are the next two.
        oversample: candidates for each point.
        importance: share of points taken from the most uncertain candidates.

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
    points = training_points(coarse, num_points, oversample, importance)
    fine = torch.cat([point_sample(features[name], points) for name in spec.in_features], dim=1)
    logits = model.point_head(fine, point_sample(coarse, points))
    return loss + F.cross_entropy(logits, labels_at(label, points))


def labels_at(label: Tensor, points: Tensor) -> Tensor:
    """Label of the pixel each point lies in: (N, H, W), (N, P, 2) in [0, 1] -> (N, P) int64."""
    height, width = label.shape[-2:]
    column = (points[..., 0] * width).long().clamp_(0, width - 1)
    row = (points[..., 1] * height).long().clamp_(0, height - 1)
    return label.flatten(1).gather(1, row * width + column)
