"""Small graphs: one convolution in three precisions, one TopK."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


def conv_graph(opset: int = 18, channels: int = 32) -> ModelProto:
    """``y = relu(conv(x))``, x (1, 3, 8, 8) float32 -> y (1, channels, 8, 8)."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(channels, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"], name="relu"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, channels, 8, 8))],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def half(model: ModelProto) -> ModelProto:
    """The convolution in float16 between two Casts."""
    weight = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight.astype(np.float16), "w"))
    conv, relu = model.graph.node
    conv.input[0] = "x16"
    relu.output[0] = "y16"
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], name="in", to=TensorProto.FLOAT16),
        conv,
        relu,
        helper.make_node("Cast", ["y16"], ["y"], name="out", to=TensorProto.FLOAT),
    ]
    return _with(model, nodes)


def quantized(model: ModelProto) -> ModelProto:
    """The convolution between Q/DQ pairs: its input a tensor at a time, its weight a channel."""
    weight = numpy_helper.to_array(model.graph.initializer[0])
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    whole = np.round(weight / scale[:, None, None, None]).astype(np.int8)
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(whole, "wq"),
            numpy_helper.from_array(scale, "ws"),
            numpy_helper.from_array(np.zeros(len(scale), np.int8), "wz"),
            numpy_helper.from_array(np.float32(0.05), "xs"),
            numpy_helper.from_array(np.int8(0), "xz"),
        ]
    )
    conv, relu = model.graph.node
    conv.input[0], conv.input[1] = "xd", "w"
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="xq"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], name="xd"),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], name="wd", axis=0),
        conv,
        relu,
    ]
    return _with(model, nodes)


def topk_graph(k: int, constant: bool = False) -> ModelProto:
    """``TopK(x, k)``, x (1, 8192); k an initializer or a Constant."""
    size = numpy_helper.from_array(np.array([k]), "k")
    nodes = [helper.make_node("TopK", ["x", "k"], ["v", "i"], name="top")]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["k"], name="k", value=size))
    graph = helper.make_graph(
        nodes,
        "top",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8192))],
        [helper.make_tensor_value_info("i", TensorProto.INT64, (1, k))],
        [] if constant else [size],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _with(model: ModelProto, nodes: list[onnx.NodeProto]) -> ModelProto:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def half_convs(model: ModelProto) -> ModelProto:
    """A copy of a graph whose convolutions compute in float16, each between two Casts."""
    model = ModelProto.FromString(model.SerializeToString())
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "Conv":
            continue
        out = node.output[0]
        casts = [
            helper.make_node("Cast", [name], [f"{out}.{i}"], name=f"{node.name}.{i}", to=10)
            for i, name in enumerate(node.input)
        ]
        for i in range(len(node.input)):
            node.input[i] = f"{out}.{i}"
        node.output[0] = f"{out}.half"
        nodes[-1:-1] = casts
        nodes.append(helper.make_node("Cast", [node.output[0]], [out], name=f"{node.name}.f", to=1))
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(_with(model, nodes))


def quantized_convs(model: ModelProto) -> ModelProto:
    """A copy of a graph whose two-dimensional convolutions stand between Q/DQ pairs."""
    model = ModelProto.FromString(model.SerializeToString())
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is not None and weight.ndim == 4:
            nodes += _pairs(model, node, weight)
        nodes.append(node)
    return _with(model, nodes)


def _pairs(model: ModelProto, node: onnx.NodeProto, weight: np.ndarray) -> list[onnx.NodeProto]:
    name = node.name
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127 + 1e-9).astype(np.float32)
    whole = np.round(weight / scale[:, None, None, None]).astype(np.int8)
    values = {
        "wq": whole,
        "ws": scale,
        "wz": np.zeros(len(scale), np.int8),
        "xs": np.float32(0.05),
        "xz": np.int8(0),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(value, f"{name}.{key}") for key, value in values.items()
    )
    made = [
        helper.make_node(
            "QuantizeLinear",
            [node.input[0], f"{name}.xs", f"{name}.xz"],
            [f"{name}.xq"],
            name=f"{name}.q",
        ),
        helper.make_node(
            "DequantizeLinear",
            [f"{name}.xq", f"{name}.xs", f"{name}.xz"],
            [f"{name}.xd"],
            name=f"{name}.dq",
        ),
        helper.make_node(
            "DequantizeLinear",
            [f"{name}.wq", f"{name}.ws", f"{name}.wz"],
            [f"{name}.w"],
            name=f"{name}.wdq",
            axis=0,
        ),
    ]
    node.input[0], node.input[1] = f"{name}.xd", f"{name}.w"
    return made
