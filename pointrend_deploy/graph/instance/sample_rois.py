"""PointRendSampleRoIs: the first layer of the point head at points of all RoIs, as one custom op.

PointRendSampleRoIs, attributes ``plugin_namespace`` and ``plugin_version``:
    table (N, H, W, C), cells (R, h, w, D) and bias (C,) of one type, C <= D, R a multiple of N;
    boxes (R, 4) float32, (x1, y1, x2, y2) in [0, 1] of the map; points (R, P, 2) float32, (x, y) in
    [0, 1] of the box -> (R, P, D) of the table's type.
    Each RoI's cells sampled at its points, and in the first C channels the ReLU of that sum: cells
    sampled, plus bias, plus the table sampled where the point lies on the map of the RoI's picture
    (R / N RoIs of each picture in turn). Sampling is that of PointRendSample; sums are float32.

The table is the projected feature map and the first C channels of the cells the projected coarse
logits, so those channels of the result are the first hidden layer. The other channels are handed
on to later layers. Channels come last: a point's values lie together, so that the layers after it
are products with rows.
"""

from __future__ import annotations

from typing import Final

import onnx
import onnx.parser
import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.graph.bodies import finished
from pointrend_deploy.graph.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION
from pointrend_deploy.model.pointrend import point_sample

SAMPLE_ROIS: Final = "PointRendSampleRoIs"


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
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{SAMPLE_ROIS}",
            (table, cells, bias, boxes, points),
            dict(PLUGIN_ATTRIBUTES),
            dtype=table.dtype,
            shape=(cells.shape[0], points.shape[1], cells.shape[3]),
            version=VERSION,
        )
    pictures, hidden = table.shape[0], table.shape[3]
    own = point_sample(cells.permute(0, 3, 1, 2), points).transpose(1, 2)
    on_map = boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])
    on_map = on_map.reshape(pictures, -1, 2)
    fine = point_sample(table.permute(0, 3, 1, 2), on_map).transpose(1, 2)
    first = F.relu(own[..., :hidden] + fine.reshape(*points.shape[:2], hidden) + bias)
    return torch.cat((first, own[..., hidden:]), dim=2)


def sample_rois_body(opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendSampleRoIs: rows are gathered corner by corner, in float32."""
    text = "".join((_START, _ON_MAP, *_sampled("table"), *_sampled("cells"), _END))
    return finished(SAMPLE_ROIS, onnx.parser.parse_function(text), opset)


def _sampled(name: str) -> list[str]:
    """Sample rows of a map (M, height, width, channels): ``<name>_sampled`` (R, P, channels)."""
    axes = (_PAIR.format(name=name, axis=axis, dim=dim) for axis, dim in (("x", 2), ("y", 1)))
    parts = [_ROWS, *axes]
    before = ""
    for number, (y, x) in enumerate((y, x) for y in ("low", "high") for x in ("low", "high")):
        parts.append(_CORNER.format(name=name, y=y, x=x, number=number))
        if before:
            parts.append(f"{name}_sum{number} = Add ({before}, {name}_part{number})\n")
        before = f"{name}_sum{number}" if before else f"{name}_part{number}"
    parts.append(f"{name}_sampled = Identity ({before})\n")
    return [part.replace("{name}", name) for part in parts]


_START: Final = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
{SAMPLE_ROIS} (table, cells, bias, boxes, points) => (result)
{{
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    zero_f = Constant <value_float = 0.0> ()
    one_f = Constant <value_float = 1.0> ()
    half = Constant <value_float = 0.5> ()
    axis1 = Constant <value_ints = [1]> ()
    last = Constant <value_ints = [-1]> ()
    first_of = Constant <value_ints = [0]> ()
    end_of = Constant <value_ints = [9223372036854775807]> ()
    pictures = Shape <start = 0, end = 1> (table)
    rois_shape = Shape <start = 0, end = 1> (cells)
    rois = Squeeze (rois_shape)
    each = Div (rois_shape, pictures)
    ordinal = Range (zero, rois, one)
    picture = Div (ordinal, each)
    table_of = Unsqueeze (picture, axis1)
    cells_of = Unsqueeze (ordinal, axis1)
    cells_x, cells_y = Split <axis = 2, num_outputs = 2> (points)
"""
_ON_MAP: Final = """
    corners = Unsqueeze (boxes, axis1)
    left, top, right, bottom = Split <axis = 2, num_outputs = 4> (corners)
    width = Sub (right, left)
    height = Sub (bottom, top)
    across = Mul (cells_x, width)
    down = Mul (cells_y, height)
    table_x = Add (across, left)
    table_y = Add (down, top)
"""
_ROWS: Final = """
    {name}_channels = Shape <start = 3, end = 4> ({name})
    {name}_rows_shape = Concat <axis = 0> (last, {name}_channels)
    {name}_rows = Reshape ({name}, {name}_rows_shape)
    {name}_fp32 = Cast <to = 1> ({name}_rows)
    {name}_width = Shape <start = 2, end = 3> ({name})
    {name}_height = Shape <start = 1, end = 2> ({name})
    {name}_size = Mul ({name}_width, {name}_height)
    {name}_first = Mul ({name}_of, {name}_size)
"""
_PAIR: Final = """
    {name}_n{axis} = Shape <start = {dim}> ({name})
    {name}_length{axis} = Gather <axis = 0> ({name}_n{axis}, zero)
    {name}_extent{axis} = Cast <to = 1> ({name}_length{axis})
    {name}_scaled{axis} = Mul ({name}_{axis}, {name}_extent{axis})
    {name}_at{axis} = Sub ({name}_scaled{axis}, half)
    {name}_end{axis} = Sub ({name}_extent{axis}, one_f)
    {name}_before{axis} = Sub ({name}_end{axis}, one_f)
    {name}_most{axis} = Max ({name}_before{axis}, zero_f)
    {name}_inside{axis} = Clip ({name}_at{axis}, zero_f, {name}_most{axis})
    {name}_low_i{axis} = Cast <to = 7> ({name}_inside{axis})
    {name}_low{axis} = Cast <to = 1> ({name}_low_i{axis})
    {name}_next{axis} = Add ({name}_low{axis}, one_f)
    {name}_high{axis} = Min ({name}_next{axis}, {name}_end{axis})
    {name}_high_i{axis} = Cast <to = 7> ({name}_high{axis})
    {name}_low_off{axis} = Sub ({name}_at{axis}, {name}_low{axis})
    {name}_low_far{axis} = Abs ({name}_low_off{axis})
    {name}_low_left{axis} = Sub (one_f, {name}_low_far{axis})
    {name}_low_weight{axis} = Relu ({name}_low_left{axis})
    {name}_high_off{axis} = Sub ({name}_at{axis}, {name}_next{axis})
    {name}_high_far{axis} = Abs ({name}_high_off{axis})
    {name}_high_left{axis} = Sub (one_f, {name}_high_far{axis})
    {name}_high_hat{axis} = Relu ({name}_high_left{axis})
    {name}_two{axis} = Greater ({name}_high{axis}, {name}_low{axis})
    {name}_high_weight{axis} = Where ({name}_two{axis}, {name}_high_hat{axis}, zero_f)
"""
"""Two neighbouring cells of an axis and their weights, the hat functions of both.

Off the map they are the outermost two: one hat is cut by the border, the other is 0. An axis of one
cell has no second one.
"""
_CORNER: Final = """
    {name}_down{number} = Mul ({name}_{y}_iy, {name}_width)
    {name}_in_map{number} = Add ({name}_down{number}, {name}_{x}_ix)
    {name}_in_map_flat{number} = Squeeze ({name}_in_map{number}, last)
    {name}_row{number} = Add ({name}_in_map_flat{number}, {name}_first)
    {name}_weight{number} = Mul ({name}_{y}_weighty, {name}_{x}_weightx)
    {name}_found{number} = Gather <axis = 0> ({name}_fp32, {name}_row{number})
    {name}_part{number} = Mul ({name}_found{number}, {name}_weight{number})
"""
_END: Final = """
    handed = Slice (cells_sampled, table_channels, end_of, last)
    own = Slice (cells_sampled, first_of, table_channels, last)
    both = Add (own, table_sampled)
    bias_fp32 = Cast <to = 1> (bias)
    biased = Add (both, bias_fp32)
    first_layer = Relu (biased)
    joined = Concat <axis = 2> (first_layer, handed)
    result = CastLike (joined, table)
}
"""
