"""The custom ops of domain ``pointrend``: their contract, and how the traceable modules call them.

PointRendSample, attributes ``plugin_namespace`` and ``plugin_version``:
    features (N, C, H, W), points (N, P, 2) float32, (x, y) in [0, 1] of the map
    -> (N, C, P) of the features' type.
    Bilinear, cell centres at (i + 0.5) / size, zeros outside the map.

PointRendSampleCells, attributes ``grid_height``, ``grid_width`` and the plugin's two:
    fine features (N, C, h, w) and coarse logits (N, D, h', w') of one type, flat indices (N, K)
    int64 of cells of a grid_height x grid_width grid over both maps
    -> (N, E, K) of the features' type, E = C + D rounded up to a multiple of 8: both maps sampled
    at the cells' centres as PointRendSample does, and zeros in the channels past C + D. Products of
    matrices in TensorRT want a multiple of 8, and would copy another number first.

PointRendSampleRoIs, attributes ``plugin_namespace`` and ``plugin_version``:
    table (N, H, W, C), cells (R, h, w, D) and bias (C,) of one type, C <= D, R a multiple of N;
    boxes (R, 4) float32, (x1, y1, x2, y2) in [0, 1] of the map; points (R, P, 2) float32, (x, y) in
    [0, 1] of the box -> (R, P, D) of the table's type.
    Each RoI's cells sampled at its points, and in the first C channels the ReLU of that sum: cells
    sampled, plus bias, plus the table sampled where the point lies on the map of the RoI's picture
    (R / N RoIs of each picture in turn). Sampling is that of PointRendSample; sums are float32.

PointRendUncertain, attributes ``k``, ``plugin_namespace`` and ``plugin_version``:
    uncertainty (N, L) float32, higher is more uncertain
    -> flat indices (N, k) int64, 1 <= k <= L.
    The k highest, ties to the lower index: the set is exact, the order of its members is free
    (the body gives them in descending order, the plugin in ascending order of index).

PointRendRoIAlign, attributes ``first_level``, ``levels`` (1 to 4), ``side`` and the plugin's two:
    boxes (N, R, 4) float32 in pixels of the network input, four maps (N, C, h_i, w_i) of the levels
    from ``first_level`` on, stride 2**level; where ``levels`` is below 4 the last map is repeated
    for the unused inputs -> (N*R, C, side, side) of the maps' type.
    ``pool_boxes`` of model/instance/roi_align.py for each picture. A box without area gives zeros.

PointRendRoIAlignFixed, attribute ``sampling_ratio`` (1 to 16) and those of PointRendRoIAlign:
    the same with ``sampling_ratio`` samples in a bin along each axis, whatever the box's size. It
    is an op of its own, as a plugin library that does not know it must not leave out the number.

PointRendNMS, attributes ``k``, ``iou_threshold``, ``score_threshold`` and the plugin's two:
    boxes (N, G, L, 4) float32, scores (N, G, L) float32: G groups that never suppress one another
    -> indices (N, k) int64, flat into G*L, by falling score, ties to the lower index, 0 in rows
    past the count; count (N,) int64, of the kept ones, at most k.
    A candidate's score is strictly above ``score_threshold``: -inf is no candidate, nor is NaN. A
    candidate is dropped where its IoU with a kept one of its group, higher in that order, is
    strictly above ``iou_threshold``; 0/0 is not above. 1 <= k <= 3840 and k <= G*L.

PointRendUpsampleUncertainty, attributes ``scale`` (2, 4, 8 or 16) and the plugin's two:
    logits (N, C, h, w) float32 or float16, C >= 2
    -> uncertainty (N, L) float32, L = h*w*scale**2.
    Second highest minus highest of the logits upsampled bilinearly (align_corners=False, edges
    clamped, float32), of every cell; 0 where the two are equal.

PointRendUpsampleLabels, the same attributes and input:
    -> the same uncertainty, and labels (N, L) int32: the class of the highest upsampled logit,
    ties to the lower class.

PointRendRefineLogits, the same attributes:
    logits (N, C, h, w), float32 or float16; flat indices (N, K) int64, none of them twice; point
    logits (N, C, K), float32 or float16
    -> (N, C, h*scale, w*scale) float32: the upsampled logits with the point logits at the indices.

PointRendRefineLabels, the plugin's attributes:
    labels (N, L) int32, indices and point logits as above
    -> (N, L) int32: the labels with the points' at the indices, ties to the lower class.

TensorRT's parser matches op names only, not domains, so the names are unlike any ONNX or TensorRT
op. The number of inputs and outputs is fixed. The bodies, standard ops only, are in bodies.py
and upsample_bodies.py; the calls of the ops that upsample and refine are in upsample.py, and call
and body of PointRendSampleRoIs in instance/sample_rois.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.options import MAX_LEVELS, TOPK_LIMIT
from pointrend_deploy.model.instance.boxes import grouped_nms
from pointrend_deploy.model.instance.roi_align import pool_boxes
from pointrend_deploy.model.pointrend import cell_centres, point_sample

DOMAIN: Final = "pointrend"
VERSION: Final = 1
SAMPLE: Final = "PointRendSample"
SAMPLE_CELLS: Final = "PointRendSampleCells"
SAMPLE_ROIS: Final = "PointRendSampleRoIs"
UNCERTAIN: Final = "PointRendUncertain"
ROI_ALIGN: Final = "PointRendRoIAlign"
ROI_ALIGN_FIXED: Final = "PointRendRoIAlignFixed"
NMS: Final = "PointRendNMS"
UPSAMPLE_UNCERTAINTY: Final = "PointRendUpsampleUncertainty"
UPSAMPLE_LABELS: Final = "PointRendUpsampleLabels"
REFINE_LOGITS: Final = "PointRendRefineLogits"
REFINE_LABELS: Final = "PointRendRefineLabels"
UPSAMPLE_SCALES: Final = (2, 4, 8, 16)
"""Values of the attribute ``scale`` of the ops that upsample."""
PLUGIN_ATTRIBUTES: Final = {"plugin_namespace": "pointrend", "plugin_version": "1"}


def node(
    op: str, inputs: Sequence[Tensor], dtype: torch.dtype, shape: Sequence[int], **attributes: Any
) -> Tensor:
    """Write one node of the domain, with one output, into the graph that is being exported.

    Args:
        op: its name in the domain.
        inputs: of the node.
        dtype: of the output.
        shape: of the output.
        attributes: of the op, beside the plugin's two.
    """
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{op}",
        inputs,
        {**attributes, **PLUGIN_ATTRIBUTES},
        dtype=dtype,
        shape=shape,
        version=VERSION,
    )


def sample(features: Tensor, points: Tensor) -> Tensor:
    """(N, C, H, W) at (N, P, 2) -> (N, C, P): one PointRendSample node when exported.

    Run eagerly it is the reference's ``point_sample``.
    """
    if not torch.compiler.is_exporting():
        return point_sample(features, points)
    shape = (features.shape[0], features.shape[1], points.shape[1])
    return node(SAMPLE, (features, points), features.dtype, shape)


def sample_cells(fine: Tensor, coarse: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    """Sample two maps at cells of a grid: one PointRendSampleCells node when exported.

    Args:
        fine: (N, C, h, w).
        coarse: (N, D, h', w').
        indices: (N, K) int64, flat, of cells of the grid.
        height: of the grid.
        width: of the grid.

    Returns:
        (N, C + D rounded up to a multiple of 8, K).
    """
    sampled = fine.shape[1] + coarse.shape[1]
    channels = cells_channels(sampled)
    if not torch.compiler.is_exporting():
        points = cell_centres(indices, height, width, fine.dtype)
        both = torch.cat([point_sample(each, points) for each in (fine, coarse)], dim=1)
        return F.pad(both, (0, 0, 0, channels - sampled))
    inputs, shape = (fine, coarse, indices), (fine.shape[0], channels, indices.shape[1])
    return node(SAMPLE_CELLS, inputs, fine.dtype, shape, grid_height=height, grid_width=width)


def cells_channels(sampled: int) -> int:
    """Return the channels of :func:`sample_cells`' result, of ``sampled`` channels of maps."""
    return -(-sampled // 8) * 8


def most_uncertain(uncertainty: Tensor, k: int) -> Tensor:
    """(N, L) -> flat indices (N, k) int64: one PointRendUncertain node when exported.

    Run eagerly it is a stable sort: descending, ties to the lower index.
    """
    if not torch.compiler.is_exporting():
        order = torch.sort(uncertainty, dim=1, descending=True, stable=True).indices
        return order[:, :k]
    return node(UNCERTAIN, (uncertainty,), torch.int64, (uncertainty.shape[0], k), k=k)


def pool(
    boxes: Tensor, maps: Sequence[Tensor], first_level: int, side: int, sampling_ratio: int = 0
) -> Tensor:
    """Features of boxes (N, R, 4): one PointRendRoIAlign or -Fixed node when exported.

    Run eagerly it is the reference's ``pool_boxes``, picture by picture.

    Args:
        boxes: in pixels of the network input.
        maps: (N, C, h_i, w_i), finest first.
        first_level: exponent of the first map's stride.
        side: of the pooled features.
        sampling_ratio: samples in a bin along each axis; 0 for a number that grows with the box.

    Returns:
        (N*R, C, side, side).

    Raises:
        DeployError: no map, or more than four.
    """
    if not 1 <= len(maps) <= MAX_LEVELS:
        raise DeployError(f"RoIAlign takes 1 to {MAX_LEVELS} pyramid levels, not {len(maps)}")
    if not torch.compiler.is_exporting():
        levels = range(first_level, first_level + len(maps))
        pooled = [
            pool_boxes([each[n : n + 1] for each in maps], levels, boxes[n], side, sampling_ratio)
            for n in range(boxes.shape[0])
        ]
        return torch.cat(pooled)
    inputs = [*maps, *[maps[-1]] * (MAX_LEVELS - len(maps))]
    fixed = {"sampling_ratio": sampling_ratio} if sampling_ratio else {}
    return node(
        ROI_ALIGN_FIXED if fixed else ROI_ALIGN,
        (boxes, *inputs),
        maps[0].dtype,
        (boxes.shape[0] * boxes.shape[1], maps[0].shape[1], side, side),
        first_level=first_level,
        levels=len(maps),
        side=side,
        **fixed,
    )


def suppress(
    boxes: Tensor, scores: Tensor, k: int, iou_threshold: float, score_threshold: float
) -> tuple[Tensor, Tensor]:
    """The best of what NMS within each group leaves: one PointRendNMS node when exported.

    Args:
        boxes: (N, G, L, 4).
        scores: (N, G, L).
        k: most kept.
        iou_threshold: see the module.
        score_threshold: see the module.

    Returns:
        indices (N, k) int64 and count (N,) int64.

    Raises:
        DeployError: ``k`` is not in 1 to 3840, or over G*L.
    """
    n, groups, length = scores.shape
    if not 1 <= k <= min(TOPK_LIMIT, groups * length):
        raise DeployError(
            f"NMS keeps 1 to {min(TOPK_LIMIT, groups * length)} of {groups * length} boxes, not {k}"
        )
    if torch.compiler.is_exporting():
        thresholds = {"iou_threshold": iou_threshold, "score_threshold": score_threshold}
        indices, count = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{NMS}",
            (boxes, scores),
            {"k": k, **thresholds, **PLUGIN_ATTRIBUTES},
            dtypes=(torch.int64, torch.int64),
            shapes=((n, k), (n,)),
            version=VERSION,
        )
        return indices, count
    group = torch.arange(groups).repeat_interleave(length)
    indices, count = torch.zeros(n, k, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
    for picture in range(n):
        flat = scores[picture].reshape(-1)
        candidates = (flat > score_threshold).nonzero()[:, 0]
        kept = grouped_nms(
            boxes[picture].reshape(-1, 4)[candidates],
            flat[candidates],
            group[candidates],
            iou_threshold,
            k,
        )
        indices[picture, : len(kept)] = candidates[kept]
        count[picture] = len(kept)
    return indices, count


def integer_quotient(numerator: Tensor, divisor: int) -> Tensor:
    """Non-negative int64 divided by a positive int, rounded down: one Div node when exported.

    The exporter's own translation of an integer division goes through float32, which is exact up
    to 2**24 cells only, and through five more nodes.
    """
    if not torch.compiler.is_exporting():
        return torch.div(numerator, divisor, rounding_mode="trunc")
    return torch.onnx.ops.symbolic(
        "Div",
        (numerator, torch.tensor(divisor)),
        {},
        dtype=torch.int64,
        shape=tuple(numerator.shape),
    )
