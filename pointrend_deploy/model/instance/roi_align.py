"""RoIAlign over a feature pyramid, aligned, in plain torch.

Source: He et al. 2017, section 3; detectron2 modeling/poolers.py (which level) and torchvision's
roi_align with ``aligned=True`` (what is sampled).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.model.instance.boxes import area

CANONICAL_SIZE = 224
CANONICAL_LEVEL = 4
"""A box of 224 x 224 pixels belongs on level 4 (stride 16); Lin et al. 2017, equation 1."""


def levels_of(boxes: Tensor, lowest: int, highest: int) -> Tensor:
    """Choose the pyramid level that each box is pooled from, by its area.

    Args:
        boxes: (R, 4), widths and heights not negative.
        lowest: exponent of the finest level's stride, such as 2.
        highest: that of the coarsest.

    Returns:
        (R,) int64 in lowest..highest.
    """
    size = area(boxes).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(size / CANONICAL_SIZE + 1e-8))
    return level.clamp(lowest, highest).to(torch.int64)


def pool_boxes(
    features: Sequence[Tensor],
    levels: Sequence[int],
    boxes: Tensor,
    side: int,
    sampling_ratio: int = 0,
) -> Tensor:
    """Pool every box by RoIAlign on the pyramid level for its size.

    Args:
        features: pyramid levels (1, C, h_i, w_i) of one picture, finest first.
        levels: exponent of each level's stride, ascending without a gap.
        boxes: (R, 4) in pixels of the network input.
        side: of the pooled features.
        sampling_ratio: as for :func:`roi_align`.

    Returns:
        (R, C, side, side).
    """
    chosen = levels_of(boxes, levels[0], levels[-1])
    pooled = features[0].new_zeros(len(boxes), features[0].shape[1], side, side)
    for feature, level in zip(features, levels, strict=True):
        here = (chosen == level).nonzero()[:, 0]
        pooled[here] = roi_align(feature, boxes[here], 1.0 / 2**level, side, sampling_ratio)
    return pooled


def roi_align(
    feature: Tensor, boxes: Tensor, spatial_scale: float, side: int, sampling_ratio: int = 0
) -> Tensor:
    """Average bilinear samples in each of side x side bins of every box.

    A bin has ``sampling_ratio`` rows and columns of samples or, where that is 0, ceil(box height in
    cells / side) rows and as many columns by its width. A sample up to one cell outside the map
    takes the value at its edge; one further out is 0. With a ratio of 0 a box without height or
    width has no samples, and its features are 0; with another its samples lie in one place.

    Args:
        feature: (1, C, H, W).
        boxes: (R, 4) in pixels of the network input.
        spatial_scale: cells a pixel, 1 / stride.
        side: number of bins along each axis.
        sampling_ratio: samples in a bin along each axis; 0 for a number that grows with the box.

    Returns:
        (R, C, side, side).
    """
    _, channels, height, width = feature.shape
    rows = feature[0].permute(1, 2, 0).reshape(height * width, channels)
    start = boxes[:, :2] * spatial_scale - 0.5
    size = boxes[:, 2:] * spatial_scale - 0.5 - start
    counts = (size / side).ceil().to(torch.int64)
    if sampling_ratio > 0:
        counts = torch.full_like(counts, sampling_ratio)
    pooled = feature.new_zeros(len(boxes), side * side, channels)
    for count_x, count_y in torch.unique(counts, dim=0).tolist():
        if min(count_x, count_y) < 1:
            continue
        same = ((counts[:, 0] == count_x) & (counts[:, 1] == count_y)).nonzero()[:, 0]
        x, weight_x = _taps(start[same, 0], size[same, 0], count_x, side, width)
        y, weight_y = _taps(start[same, 1], size[same, 1], count_y, side, height)
        index = y[:, :, None, :, None] * width + x[:, None, :, None, :]
        weight = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
        bags = (len(same) * side * side, -1)
        means = F.embedding_bag(
            index.reshape(bags), rows, mode="sum", per_sample_weights=weight.reshape(bags)
        )
        pooled[same] = means.view(len(same), side * side, channels)
    return pooled.transpose(1, 2).reshape(len(boxes), channels, side, side)


def _taps(start: Tensor, size: Tensor, count: int, side: int, cells: int) -> tuple[Tensor, Tensor]:
    """Cells read along one axis and their weights; bilinear weights are products of two axes'.

    Args:
        start: (R,) where each box starts, in cells from the first cell's centre.
        size: (R,) its extent in cells.
        count: samples a bin.
        side: bins.
        cells: length of the map.

    Returns:
        Indices (R, side, 2 * count) int64 and weights of the same shape, the mean over the bin's
        samples included.
    """
    bins = size[:, None, None] / side
    bin_index = torch.arange(side, dtype=size.dtype, device=size.device)[None, :, None]
    sample_index = torch.arange(count, dtype=size.dtype, device=size.device)[None, None, :]
    at = start[:, None, None] + bin_index * bins + (sample_index + 0.5) * bins / count
    each = ((at >= -1.0) & (at <= cells)).to(at.dtype) / count
    at = at.clamp(0, cells - 1)
    low = at.floor()
    high = (low + 1).clamp(max=cells - 1)
    share = (at - low) * each
    weights = torch.cat((each - share, share), dim=2)
    return torch.cat((low, high), dim=2).to(torch.int64), weights
