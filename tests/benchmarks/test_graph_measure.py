"""Counted FLOPs and peak bytes of a graph small enough to count by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.graph_measure import graph_size


def test_by_hand() -> None:
    """x (1,2,4,4) -> 1x1 Conv to 3 channels (48 values) -> Relu -> Reshape (a view) -> ArgMax."""
    shapes = {"a": [1, 3, 4, 4], "b": [1, 3, 4, 4], "c": [1, 3, 16]}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Reshape", ["b", "shape"], ["c"]),
            helper.make_node("ArgMax", ["c"], ["y"], axis=1, keepdims=0),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, 16])],
        [
            numpy_helper.from_array(np.zeros((3, 2, 1, 1), np.float32), "w"),
            numpy_helper.from_array(np.array([1, 3, 16]), "shape"),
        ],
        value_info=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ],
    )
    size = graph_size(helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    assert size.nodes == 4
    assert size.flops == 2 * 48 * 2 + 48 + 48
    assert size.peak_activation_bytes == 2 * 48 * 4
