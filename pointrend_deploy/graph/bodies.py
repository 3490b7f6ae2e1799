"""Function bodies of the custom ops, in standard ops that every runtime and TensorRT's parser take.

With these in the file, a runtime without a kernel for ``pointrend`` runs the body, and a builder
that has a plugin uses the plugin instead. One body serves every node of its name: what differs from
node to node is read from the attributes; only PointRendUncertain needs one body a value of ``k``.

The bodies of PointRendSample and PointRendUncertain are onnxscript functions; those of
the RoIAligns and PointRendNMS, which read attributes, are in ONNX's text form
(onnx/docs/Syntax.md).
"""

# mypy: disable-error-code="no-untyped-def,type-arg,operator"
from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
import onnx.parser
from onnxscript import opset18 as op
from onnxscript import script
from onnxscript.values import Opset

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.ops import (
    DOMAIN,
    NMS,
    PLUGIN_ATTRIBUTES,
    ROI_ALIGN,
    ROI_ALIGN_FIXED,
    SAMPLE,
    SAMPLE_CELLS,
    UNCERTAIN,
    VERSION,
)
from pointrend_deploy.graph.options import MAX_LEVELS, TOPK_LIMIT

_domain = Opset(DOMAIN, VERSION)


def sample_body(opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendSample."""
    return finished(SAMPLE, _sample.to_function_proto(), opset)


@script(_domain, default_opset=op)
def _sample(features, points):
    """Bilinear, cell centres at (i + 0.5) / size, zeros outside: ONNX GridSample, opset 16."""
    doubled = op.Mul(points, op.Constant(value_float=2.0))
    centred = op.Sub(doubled, op.Constant(value_float=1.0))
    grid = op.Unsqueeze(centred, op.Constant(value_ints=[2]))
    sampled = op.GridSample(features, grid, align_corners=0, mode="bilinear", padding_mode="zeros")
    return op.Squeeze(sampled, op.Constant(value_ints=[3]))


def sample_cells_body(missing: int, opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendSampleCells.

    Args:
        missing: channels of zeros after those of both maps.
        opset: of the graph.
    """
    sampled = "\n".join(_AT_CELLS.format(map=name) for name in ("fine", "coarse"))
    signature = "<grid_height, grid_width> (fine, coarse, indices) => (sampled)"
    nodes = f"{_CELLS} {sampled} {_JOINED.format(missing=missing)}"
    return parsed(SAMPLE_CELLS, signature, nodes, opset)


_CELLS: Final = """
    height = Constant <value_int: int = @grid_height> ()
    width = Constant <value_int: int = @grid_width> ()
    height_f = Cast <to = 1> (height)
    width_f = Cast <to = 1> (width)
    row = Div (indices, width)
    row_start = Mul (row, width)
    column = Sub (indices, row_start)
    row_f = Cast <to = 1> (row)
    column_f = Cast <to = 1> (column)
    half = Constant <value_float = 0.5> ()
    row_centre = Add (row_f, half)
    column_centre = Add (column_f, half)
    y = Div (row_centre, height_f)
    x = Div (column_centre, width_f)
    last = Constant <value_ints = [2]> ()
    x_column = Unsqueeze (x, last)
    y_column = Unsqueeze (y, last)
    points = Concat <axis = 2> (x_column, y_column)
    two = Constant <value_float = 2.0> ()
    one = Constant <value_float = 1.0> ()
    doubled = Mul (points, two)
    centred = Sub (doubled, one)
    grid = Unsqueeze (centred, last)
    ones = Constant <value_ints = [3]> ()
"""
_AT_CELLS: Final = """
    {map}_f = Cast <to = 1> ({map})
    {map}_sampled = GridSample <
        mode = "bilinear", padding_mode = "zeros", align_corners = 0
    > ({map}_f, grid)
    {map}_points = Squeeze ({map}_sampled, ones)
"""
_JOINED: Final = """
    both = Concat <axis = 1> (fine_points, coarse_points)
    widths = Constant <value_ints = [0, 0, 0, 0, {missing}, 0]> ()
    zero = Constant <value_float = 0.0> ()
    padded = Pad <mode = "constant"> (both, widths, zero)
    sampled = CastLike (padded, fine)
"""


def uncertain_body(k: int, opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendUncertain for one value of its attribute ``k``.

    Up to 3840 it is a TopK. Above, rounds of TopK of at most 3840, each over what the rounds
    before have not taken: the order is a stable sort's, since ONNX's TopK gives ties to the lower
    index and every round sees the remaining cells in place. The number of rounds is fixed by
    ``k``, so a graph has one value of k; steps that recompute every cell select nothing.

    Raises:
        DeployError: ``k`` below 1.
    """
    if k < 1:
        raise DeployError(f"k of {UNCERTAIN} is at least 1, not {k}")
    rounds = -(-k // TOPK_LIMIT)
    body = onnx.FunctionProto(domain=DOMAIN, name=UNCERTAIN, input=["uncertainty"])
    left = "uncertainty"
    if rounds > 1:
        (left,) = _append(body, _finite, [left], "finite")
    parts = []
    for number in range(rounds):
        share = min(TOPK_LIMIT, k - number * TOPK_LIMIT)
        share_name = f"k_{number}"
        body.node.append(onnx.helper.make_node("Constant", [], [share_name], value_ints=[share]))
        if number + 1 < rounds:
            taken, left = _append(body, _take, [left, share_name], f"round_{number}")
        else:
            (taken,) = _append(body, _take_last, [left, share_name], f"round_{number}")
        parts.append(taken)
    body.node.append(onnx.helper.make_node("Concat", parts, ["indices"], axis=1))
    body.output.append("indices")
    body.attribute.append("k")
    return finished(UNCERTAIN, body, opset)


def _append(body: onnx.FunctionProto, part: Any, inputs: list[str], prefix: str) -> list[str]:
    """Append the nodes of a script function to a body, its values named under ``prefix``."""
    proto = part.to_function_proto()
    names = dict(zip(proto.input, inputs, strict=True))

    def renamed(name: str) -> str:
        return names.get(name, f"{prefix}.{name}") if name else ""

    for node in proto.node:
        copy = body.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [renamed(name) for name in node.input]
        copy.output[:] = [renamed(name) for name in node.output]
    return [renamed(name) for name in proto.output]


@script(_domain, default_opset=op)
def _finite(uncertainty):
    """Raise -inf to the lowest finite number, so that -inf can mark what has been taken."""
    return op.Max(uncertainty, op.Constant(value_float=-3.4028234663852886e38))


@script(_domain, default_opset=op)
def _take(left, k):
    """One round: the k highest cells, and the map with -inf in their place."""
    values, taken = op.TopK(left, k, axis=1, largest=1, sorted=1)
    gone = op.Sub(values, op.Constant(value_float=float("inf")))
    rest = op.ScatterElements(left, taken, gone, axis=1)
    return taken, rest


@script(_domain, default_opset=op)
def _take_last(left, k):
    """The last round: nothing is left to mark."""
    _, taken = op.TopK(left, k, axis=1, largest=1, sorted=1)
    return taken


def roi_align_body(opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendRoIAlign."""
    return _roi_align(ROI_ALIGN, "first_level, levels, side", _ON_MAP, opset)


def roi_align_fixed_body(opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendRoIAlignFixed."""
    attributes = "first_level, levels, side, sampling_ratio"
    return _roi_align(ROI_ALIGN_FIXED, attributes, _ON_MAP_FIXED, opset)


def _roi_align(op: str, attributes: str, on_map: str, opset: int) -> onnx.FunctionProto:
    lines = [_LEVELS, _PICTURES]
    for i in range(MAX_LEVELS):
        if i:
            lines.append(_NEXT_MAP.format(i=i, before=i - 1))
        lines.append(on_map.format(i=i))
        if i:
            lines.append(_ADD.format(i=i, before=f"sum{i - 1}" if i > 1 else "pooled0"))
    maps = ", ".join(f"map{i}" for i in range(MAX_LEVELS))
    lines.append(f"pooled = CastLike (sum{MAX_LEVELS - 1}, map0)")
    return parsed(op, f"<{attributes}> (boxes, {maps}) => (pooled)", "".join(lines), opset)


_LEVELS: Final = """
    first = Constant <value_int: int = @first_level> ()
    first_f = Cast <to = 1> (first)
    levels = Constant <value_int: int = @levels> ()
    levels_f = Cast <to = 1> (levels)
    one_f = Constant <value_float = 1.0> ()
    last = Sub (levels_f, one_f)
    rows_shape = Constant <value_ints = [-1, 4]> ()
    rows = Reshape (boxes, rows_shape)
    x1, y1, x2, y2 = Split <axis = 1, num_outputs = 4> (rows)
    width = Sub (x2, x1)
    height = Sub (y2, y1)
    area = Mul (width, height)
    root = Sqrt (area)
    canonical = Constant <value_float = 224.0> ()
    ratio = Div (root, canonical)
    tiny = Constant <value_float = 1e-8> ()
    size = Add (ratio, tiny)
    two = Constant <value_float = 2.0> ()
    three = Constant <value_float = 3.0> ()
    exponent = Sub (first_f, three)
    bound0 = Pow (two, exponent)
    bound1 = Mul (bound0, two)
    bound2 = Mul (bound1, two)
    over0 = GreaterOrEqual (size, bound0)
    over1 = GreaterOrEqual (size, bound1)
    over2 = GreaterOrEqual (size, bound2)
    step0 = Cast <to = 1> (over0)
    step1 = Cast <to = 1> (over1)
    step2 = Cast <to = 1> (over2)
    steps01 = Add (step0, step1)
    steps = Add (steps01, step2)
    level = Min (steps, last)
"""
"""Level of every box, from 0: its size is compared with powers of two.

A logarithm near a whole number would round differently from one runtime to the next.
"""
_PICTURES: Final = """
    pictures = Shape <start = 0, end = 1> (boxes)
    each = Shape <start = 1, end = 2> (boxes)
    count = Mul (pictures, each)
    stop = Squeeze (count)
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    ordinal = Range (zero, stop, one)
    picture = Div (ordinal, each)
    half = Constant <value_float = 0.5> ()
    finest = Pow (half, first_f)
    nothing = Constant <value_float = 0.0> ()
    cells0 = Mul (rows, finest)
"""
"""Number of the picture of every box, and the boxes in cells of the finest map."""
_ON_MAP: Final = """
    number{i} = Constant <value_float = {i}.0> ()
    here{i} = Equal (level, number{i})
    own{i} = Where (here{i}, cells{i}, nothing)
    values{i} = Cast <to = 1> (map{i})
    pooled{i} = RoiAlign <
        coordinate_transformation_mode = "half_pixel", mode = "avg", sampling_ratio = 0,
        spatial_scale = 1.0, output_height: int = @side, output_width: int = @side
    > (values{i}, own{i}, picture)
"""
"""RoIAlign on one map, of boxes of other levels with a size of nothing.

A box without area has a grid of no samples: zeros, which change no sum and cost no sampling.
"""
_ON_MAP_FIXED: Final = """
    number{i} = Constant <value_float = {i}.0> ()
    here{i} = Equal (level, number{i})
    own{i} = Where (here{i}, cells{i}, nothing)
    values{i} = Cast <to = 1> (map{i})
    found{i} = RoiAlign <
        coordinate_transformation_mode = "half_pixel", mode = "avg",
        sampling_ratio: int = @sampling_ratio,
        spatial_scale = 1.0, output_height: int = @side, output_width: int = @side
    > (values{i}, own{i}, picture)
    axes{i} = Constant <value_ints = [2, 3]> ()
    kept{i} = Unsqueeze (here{i}, axes{i})
    pooled{i} = Where (kept{i}, found{i}, nothing)
"""
"""The same with a number of samples that is fixed, so a size of nothing has samples too.

What they give is replaced by zeros, where the box is of another level.
"""
_NEXT_MAP: Final = """
    cells{i} = Mul (cells{before}, half)
"""
_ADD: Final = """
    sum{i} = Add ({before}, pooled{i})
"""


def nms_body(opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendNMS."""
    signature = "<k, iou_threshold, score_threshold> (boxes, scores) => (indices, count)"
    return parsed(NMS, signature, _NMS, opset)


_NMS: Final = """
    axis0 = Constant <value_ints = [0]> ()
    k_value = Constant <value_int: int = @k> ()
    most = Unsqueeze (k_value, axis0)
    iou = Constant <value_float: float = @iou_threshold> ()
    iou_limit = Unsqueeze (iou, axis0)
    score = Constant <value_float: float = @score_threshold> ()
    score_limit = Unsqueeze (score, axis0)
    any_number = Constant <value_ints = [-1]> ()
    group_shape = Shape <start = 2, end = 4> (boxes)
    listed_shape = Concat <axis = 0> (any_number, group_shape)
    listed = Reshape (boxes, listed_shape)
    rated_shape = Constant <value_ints = [-1, 1, 0]> ()
    rated = Reshape (scores, rated_shape)
    kept = NonMaxSuppression (listed, rated, most, iou_limit, score_limit)
    batch, no_class, member = Split <axis = 1, num_outputs = 3> (kept)
    groups = Shape <start = 1, end = 2> (scores)
    picture = Div (batch, groups)
    first_batch = Mul (picture, groups)
    group = Sub (batch, first_batch)
    where = Concat <axis = 1> (picture, group, member)
    kept_scores = GatherND (scores, where)
    never = Constant <value = bool {0}> ()
    lowest = Constant <value_float = -inf> ()
    none = Where (never, scores, lowest)
    marked = ScatterND (none, where, kept_scores)
    flat_shape = Constant <value_ints = [0, -1]> ()
    flat = Reshape (marked, flat_shape)
    values, order = TopK <axis = 1, largest = 1, sorted = 1> (flat, most)
    found = Greater (values, lowest)
    zero = Constant <value_int = 0> ()
    indices = Where (found, order, zero)
    found_i = Cast <to = 7> (found)
    axis1 = Constant <value_ints = [1]> ()
    count = ReduceSum <keepdims = 0> (found_i, axis1)
"""
"""Every group of every picture is one of NonMaxSuppression's batches, of one class.

What it keeps is put at its place among -inf, so that one TopK gives order and number. Only the
values between the two have sizes that depend on the data.
"""


def parsed(name: str, signature: str, nodes: str, opset: int) -> onnx.FunctionProto:
    """Read a body from ONNX's text form and finish it.

    Args:
        name: of the op.
        signature: attributes, inputs and outputs: ``<k> (values) => (indices)``.
        nodes: a line each.
        opset: of the graph.
    """
    head = f'<domain: "{DOMAIN}", opset_import: ["" : 18]>'
    text = f"{head}\n{name} {signature}\n{{ {nodes} }}"
    return finished(name, onnx.parser.parse_function(text), opset)


def finished(name: str, body: onnx.FunctionProto, opset: int) -> onnx.FunctionProto:
    """Name a body's nodes, declare its plugin attributes, and leave nothing of this machine."""
    body.name = name
    body.doc_string = ""
    for attribute in PLUGIN_ATTRIBUTES:
        if attribute not in body.attribute:
            body.attribute.append(attribute)
    del body.opset_import[:]
    body.opset_import.append(onnx.helper.make_opsetid("", opset))
    for index, node in enumerate(body.node):
        _hold_as_tensor(node)
        node.name = f"{node.op_type}_{index}"
        node.doc_string = ""
        del node.metadata_props[:]
    return body


def _hold_as_tensor(node: onnx.NodeProto) -> None:
    """Make a tensor of a constant list.

    ONNX Runtime to 1.23, Python 3.10's last, infers no shape from ``value_ints`` in a function.
    """
    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.name == "value_ints" and not attribute.ref_attr_name:
            value = onnx.numpy_helper.from_array(np.array(attribute.ints, np.int64))
            attribute.CopyFrom(onnx.helper.make_attribute("value", value))
