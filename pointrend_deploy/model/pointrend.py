"""PointRend itself: point sampling, uncertainty, the point head, and the two subdivision loops.

This is the reference and keeps detectron2's form; the cheaper, equal forms are in graph/. One thing
is left out: of an instance's classes only the predicted one is read, so the loop carries its plane
alone, where detectron2 carries a plane for every class and takes one at the end. Read it from the
top: the definitions, the head, the semantic loop, the instance loop.

Coordinates are (x, y) in [0, 1] relative to the map or the box; the cell (row, column) of an H x W
grid has its centre at ((column + 0.5) / W, (row + 0.5) / H). Tensors are float32 (the reference
also runs in float64), indices int64.

Sources: Kirillov et al. 2020, sections 3.1 (subdivision), 3.2 (uncertainty) and 3.3 (point head);
detectron2 projects/PointRend/point_rend: point_features.py, point_head.py (StandardPointHead),
semantic_seg.py (PointRendSemSegHead) and mask_head.py (PointRendMaskHead).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.recipe.parts import PointHeadSpec


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
    """Subtract the best logit from the second best: at most 0, and 0 where the two best tie.

    Args:
        logits: (N, C, ...) with C >= 2.

    Returns:
        (N, ...).
    """
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def most_uncertain_points(uncertainty_map: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    """Select the K = min(H*W, num_points) cells of highest uncertainty, and their centres.

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

    The arithmetic is detectron2's (half a step plus index times step), to the last bit.
    """
    step_x, step_y = 1.0 / width, 1.0 / height
    x = step_x / 2.0 + (indices % width).to(dtype) * step_x
    y = step_y / 2.0 + (indices // width).to(dtype) * step_y
    return torch.stack((x, y), dim=-1)


class StandardPointHead(nn.Module):
    """``num_fc`` layers of width ``fc_dim`` and a predictor, as 1x1 convolutions over points.

    The coarse logits it reads have ``num_classes`` channels; it predicts as many, or
    ``num_outputs`` (a class-agnostic instance head: 1).
    """

    def __init__(
        self,
        spec: PointHeadSpec,
        fine_channels: int,
        num_classes: int,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.num_fc = spec.num_fc
        self.coarse_in_every_layer = spec.coarse_in_every_layer
        channels = fine_channels + num_classes
        for number in range(1, spec.num_fc + 1):
            self.add_module(f"fc{number}", nn.Conv1d(channels, spec.fc_dim, 1))
            channels = spec.fc_dim + (num_classes if spec.coarse_in_every_layer else 0)
        self.predictor = nn.Conv1d(channels, num_outputs or num_classes, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute the logits of points.

        Args:
            fine: (N, C_fine, P) features sampled from the pyramid.
            coarse: (N, C, P) logits sampled from the original coarse prediction.

        Returns:
            (N, C, P); C is ``num_outputs`` where that was given.
        """
        x = torch.cat((fine, coarse), dim=1)
        for number in range(1, self.num_fc + 1):
            x = F.relu(self.get_submodule(f"fc{number}")(x))
            if self.coarse_in_every_layer:
                x = torch.cat((x, coarse), dim=1)
        logits: Tensor = self.predictor(x)
        return logits


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


def of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """Take the predicted class's plane of every RoI, or the only plane.

    Args:
        logits: (R, C, ...) or, class-agnostic, (R, 1, ...).
        classes: (R,) int64.

    Returns:
        (R, 1, ...).
    """
    if logits.shape[1] == 1:
        return logits
    rows = torch.arange(len(classes), device=classes.device)
    return logits[rows, classes].unsqueeze(1)


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
    """Compute the mask of every box: a first grid of points, then doubled grids' uncertain points.

    Uncertainty is minus the absolute logit of the predicted class.

    Args:
        coarse: (R, C, side, side) coarse mask logits; only ever sampled from.
        boxes: (R, 4) in pixels of the network input.
        classes: (R,) int64, the predicted classes.
        features: feature maps (1, C_i, h_i, w_i), concatenated over channels at each point.
        strides: of the feature maps.
        point_head: the MLP.
        start: side of the first grid and number of steps after it; see
            :func:`pointrend_deploy.recipe.instance.subdivision_start`.
        num_points: most points recomputed a step.

    Returns:
        ``step0.point_logits`` (R, 1, side**2) of the predicted class, row by row; for each step
        after it ``step<t>.indices`` (R, K) int64 in ascending order and ``step<t>.point_logits``
        (R, 1, K) in that order; last ``mask_logits`` (R, 1, S, S), S = side * 2**steps.
    """
    side, steps = start
    points = regular_grid(boxes, side)
    fine = sample_in_boxes(features, strides, boxes, points)
    point_logits = of_class(point_head(fine, point_sample(coarse, points)), classes)
    logits = torch.unflatten(point_logits, 2, (side, side))
    stages = {"step0.point_logits": point_logits}
    for step in range(1, steps + 1):
        logits = double(logits)
        r, _, h, w = logits.shape
        indices, points = most_uncertain_points(-logits[:, 0].abs(), num_points)
        fine = sample_in_boxes(features, strides, boxes, points)
        point_logits = of_class(point_head(fine, point_sample(coarse, points)), classes)
        flat = logits.reshape(r, 1, h * w).scatter(2, indices.unsqueeze(1), point_logits)
        logits = flat.view(r, 1, h, w)
        stages[f"step{step}.indices"] = indices
        stages[f"step{step}.point_logits"] = point_logits
    stages["mask_logits"] = logits
    return stages
