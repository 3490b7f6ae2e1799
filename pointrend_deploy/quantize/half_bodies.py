"""Function bodies that take FP16 features beside FP32 coordinates."""

from __future__ import annotations

from onnx import FunctionProto, NodeProto, TensorProto, helper


def widen_sampler(function: FunctionProto) -> None:
    """Let a body of PointRendSample sample in FP32 and give the features' type; in place.

    before: GridSample(features, grid) -> ... -> result
    after:  GridSample(Cast(features, float32), grid) -> ... -> CastLike(..., features) -> result

    GridSample wants features and grid of one type, and the grid of FP16 would be up to a pixel
    wrong. The body of PointRendRoIAlign is of this form from the start.
    """
    features, (result,) = function.input[0], function.output
    nodes: list[NodeProto] = []
    for node in function.node:
        if node.op_type == "GridSample" and node.input[0] == features:
            to = TensorProto.FLOAT
            nodes.append(helper.make_node("Cast", [features], ["features_fp32"], to=to))
            node.input[0] = "features_fp32"
        node.output[:] = ["sampled_fp32" if name == result else name for name in node.output]
        nodes.append(node)
    nodes.append(helper.make_node("CastLike", ["sampled_fp32", features], [result]))
    for index, node in enumerate(nodes):
        node.name = f"{node.op_type}_{index}"
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del function.node[:]
    function.node.extend(copies)
