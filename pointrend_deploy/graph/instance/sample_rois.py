"""PointRendSampleRoIs: the first layer of the point head at points of all RoIs, as one custom op.

Its contract is in ops.py. The table is the projected feature map and the first C channels of the
cells the projected coarse logits, so those channels of the result are the first hidden layer. The
other channels are handed on to later layers. Channels come last: a point's values lie together, so
that the layers after it are products with rows.
"""

from __future__ import annotations

from typing import Final

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.graph.bodies import parsed
from pointrend_deploy.graph.ops import SAMPLE_ROIS, node
from pointrend_deploy.model.pointrend import point_sample


def sample_rois(
    table: Tensor, cells: Tensor, bias: Tensor, boxes: Tensor, points: Tensor
) -> Tensor:
    """First layer at points of RoIs: one PointRendSampleRoIs node when exported.

    Args:
        table: (N, H, W, C).
        cells: (R, h, w, D), D at least C.
        bias: (C,).
        boxes: (R, 4), (x1, y1, x2, y2) in [0, 1] of the map.
        points: (R, P, 2), (x, y) in [0, 1] of the box.

    Returns:
        (R, P, D).
    """
    if torch.compiler.is_exporting():
        shape = (cells.shape[0], points.shape[1], cells.shape[3])
        return node(SAMPLE_ROIS, (table, cells, bias, boxes, points), table.dtype, shape)
    pictures, hidden = table.shape[0], table.shape[3]
    own = point_sample(cells.permute(0, 3, 1, 2), points).transpose(1, 2)
    on_map = boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])
    on_map = on_map.reshape(pictures, -1, 2)
    fine = point_sample(table.permute(0, 3, 1, 2), on_map).transpose(1, 2)
    first = F.relu(own[..., :hidden] + fine.reshape(*points.shape[:2], hidden) + bias)
    return torch.cat((first, own[..., hidden:]), dim=2)


def sample_rois_body(opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendSampleRoIs, in float32.

    The table is sampled by GridSample, as in the body of PointRendSample. The cells are few, so
    they are weighted by a product with the hat functions of both axes. Neither holds more than the
    result a few times over; gathered rows would be four for every point.
    """
    hats = (_HATS.format(axis=axis, dim=dim) for axis, dim in (("x", 2), ("y", 1)))
    signature = "(table, cells, bias, boxes, points) => (result)"
    return parsed(SAMPLE_ROIS, signature, "".join((_START, *hats, _END)), opset)


_START: Final = """
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    one_f = Constant <value_float = 1.0> ()
    two_f = Constant <value_float = 2.0> ()
    half = Constant <value_float = 0.5> ()
    axis1 = Constant <value_ints = [1]> ()
    axis2 = Constant <value_ints = [2]> ()
    axis3 = Constant <value_ints = [3]> ()
    any_number = Constant <value_ints = [-1]> ()
    point_shape = Constant <value_ints = [1, 2]> ()
    begin = Constant <value_ints = [0]> ()
    end = Constant <value_ints = [9223372036854775807]> ()
    pictures = Shape <start = 0, end = 1> (table)
    channels = Shape <start = 3, end = 4> (table)
    corners = Unsqueeze (boxes, axis1)
    low, high = Split <axis = 2, num_outputs = 2> (corners)
    extent = Sub (high, low)
    inside = Mul (points, extent)
    on_map = Add (inside, low)
    doubled = Mul (on_map, two_f)
    centred = Sub (doubled, one_f)
    grid_shape = Concat <axis = 0> (pictures, any_number, point_shape)
    grid = Reshape (centred, grid_shape)
    table_fp32 = Cast <to = 1> (table)
    planes = Transpose <perm = [0, 3, 1, 2]> (table_fp32)
    found = GridSample <align_corners = 0, mode = "bilinear", padding_mode = "zeros"> (planes, grid)
    flat = Squeeze (found, axis3)
    turned = Transpose <perm = [0, 2, 1]> (flat)
    points_count = Shape <start = 0, end = 2> (points)
    rows_shape = Concat <axis = 0> (points_count, channels)
    sampled = Reshape (turned, rows_shape)
    x, y = Split <axis = 2, num_outputs = 2> (points)
"""
_HATS: Final = """
    shape_{axis} = Shape <start = {dim}> (cells)
    size_{axis} = Gather <axis = 0> (shape_{axis}, zero)
    size_f_{axis} = Cast <to = 1> (size_{axis})
    numbers_{axis} = Range (zero, size_{axis}, one)
    centres_{axis} = Cast <to = 1> (numbers_{axis})
    scaled_{axis} = Mul ({axis}, size_f_{axis})
    at_{axis} = Sub (scaled_{axis}, half)
    off_{axis} = Sub (at_{axis}, centres_{axis})
    apart_{axis} = Abs (off_{axis})
    left_{axis} = Sub (one_f, apart_{axis})
    hats_{axis} = Relu (left_{axis})
"""
"""Weights (R, P, size) of an axis's cells: 1 at a cell's centre, 0 a cell away."""
_END: Final = """
    across = Unsqueeze (hats_x, axis2)
    down = Unsqueeze (hats_y, axis3)
    products = Mul (down, across)
    weights_shape = Concat <axis = 0> (points_count, any_number)
    weights = Reshape (products, weights_shape)
    rois = Shape <start = 0, end = 1> (cells)
    own_channels = Shape <start = 3, end = 4> (cells)
    cells_shape = Concat <axis = 0> (rois, any_number, own_channels)
    cells_rows = Reshape (cells, cells_shape)
    cells_fp32 = Cast <to = 1> (cells_rows)
    own_cells = Slice (cells_fp32, begin, channels, axis2)
    other_cells = Slice (cells_fp32, channels, end, axis2)
    own = MatMul (weights, own_cells)
    handed_on = MatMul (weights, other_cells)
    both = Add (own, sampled)
    bias_fp32 = Cast <to = 1> (bias)
    biased = Add (both, bias_fp32)
    first_layer = Relu (biased)
    joined = Concat <axis = 2> (first_layer, handed_on)
    result = CastLike (joined, table)
"""
