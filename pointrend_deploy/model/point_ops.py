"""The definitions: point sampling, uncertainty and the most uncertain points.

Coordinates are (x, y) in [0, 1] relative to the map; a cell (row, column) of an H x W grid has its
centre at ((column + 0.5) / W, (row + 0.5) / H). Source: the PointRend paper, sections 3.1 and 3.2;
detectron2 projects/PointRend/point_rend/point_features.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def point_sample(features: Tensor, points: Tensor) -> Tensor:
    """Sample feature maps at points, bilinearly, blending with zero outside the map.

    Args:
        features: (N, C, H, W).
        points: (N, P, 2), (x, y) in [0, 1] of the map.

    Returns:
        (N, C, P).
    """
    grid = 2.0 * points.unsqueeze(2) - 1.0
    return F.grid_sample(
        features, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    ).squeeze(3)


def uncertainty(logits: Tensor) -> Tensor:
    """Second best minus best logit over the classes: never above 0, and 0 where the two best tie.

    Args:
        logits: (N, C, ...) with C >= 2.

    Returns:
        (N, ...).
    """
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def most_uncertain_points(uncertainty_map: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    """The K = min(H*W, num_points) cells of highest uncertainty, and their centres.

    Of cells with equal uncertainty those with the lower flat index come first: detectron2 leaves
    their order to torch.topk, which leaves it open; ONNX TopK fixes it this way, so a graph and
    this reference choose the same set.

    Args:
        uncertainty_map: (N, H, W).
        num_points: at least 1.

    Returns:
        Flat indices row * W + column, (N, K) int64 in ascending order, and (x, y), (N, K, 2).
    """
    height, width = uncertainty_map.shape[-2:]
    flat = uncertainty_map.flatten(1)
    k = min(flat.shape[1], num_points)
    kth = flat.topk(k, dim=1).values[:, -1:]
    above, tied = flat > kth, flat == kth
    wanted = k - above.sum(dim=1, keepdim=True)
    chosen = above | (tied & (tied.cumsum(dim=1) <= wanted))
    indices = chosen.nonzero()[:, 1].reshape(flat.shape[0], k)
    return indices, cell_centres(indices, height, width, uncertainty_map.dtype)


def cell_centres(indices: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Centres (x, y) in [0, 1] of cells given by flat index: (N, K) int64 -> (N, K, 2).

    The arithmetic is detectron2's (half a step plus so many steps), to the last bit.
    """
    step_x, step_y = 1.0 / width, 1.0 / height
    x = step_x / 2.0 + (indices % width).to(dtype) * step_x
    y = step_y / 2.0 + (indices // width).to(dtype) * step_y
    return torch.stack((x, y), dim=-1)
