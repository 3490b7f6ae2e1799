"""What an FP32 layer of an FP16 graph hands on ends at FP16's largest number, not at infinity.

    before: conv (float32) -> Cast -> float16
    after:  conv (float32) -> Clip to -65504..65504 -> Cast -> float16

A layer is kept in FP32 because its values may be large, so what it hands on is bounded. It is also
what keeps it in FP32 on an engine: TensorRT-RTX 1.7 turns Cast -> Conv -> Cast (and ConvTranspose
and MatMul between two casts) into one FP16 kernel, strongly typed or not, and stops at a Clip.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from pointrend_deploy.quantize.decisions import cast_to

_BOUNDS: Final = {
    "fp16.least": np.array(np.finfo(np.float16).min, np.float32),
    "fp16.largest": np.array(np.finfo(np.float16).max, np.float32),
}


def saturate(model: ModelProto, layers: Collection[str]) -> None:
    """Put a Clip before every cast to FP16 of what these layers write, in place.

    Args:
        model: with ``value_info`` for every value.
        layers: names of nodes that compute in FP32.
    """
    graph = model.graph
    written = {name for node in graph.node if node.name in layers for name in node.output}
    declared = {v.name: v for v in [*graph.value_info, *graph.output]}
    nodes = []
    for node in graph.node:
        bounded = node.op_type == "Cast" and node.input[0] in written
        if bounded and cast_to(node) == TensorProto.FLOAT16:
            clip = f"{node.input[0].removesuffix('.out')}.bounded"
            info = onnx.ValueInfoProto()
            info.CopyFrom(declared[node.input[0]])
            info.name = f"{clip}.out"
            graph.value_info.append(info)
            nodes.append(helper.make_node("Clip", [node.input[0], *_BOUNDS], [info.name], clip))
            node.input[0] = info.name
        nodes.append(node)
    if len(nodes) > len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in _BOUNDS.items())
