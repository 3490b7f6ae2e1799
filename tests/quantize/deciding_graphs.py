"""A hand-made subdivision step: logits decide which points of a map are sampled and labelled."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pointrend_deploy.graph.passes.bodies import attach_bodies
from tests.quantize.small_graphs import Graph

HW = tuple[int, int]
POINTS = "step0.concat.out"
"""The value that holds the coordinates."""


def step(hw: HW = (24, 40), k: int = 50, labels_name: str = "labels") -> onnx.ModelProto:
    """One step on a grid four times as fine as the picture.

    ``image`` (1, 2, H/4, W/4) -> ``labels`` (1, k) int64, ``scores`` (1, 3, k) float32 and ``p2``
    (1, 4, H/4, W/4) float32, which a layer gives.
    """
    height, width = hw
    g = Graph(image=(1, 2, height // 4, width // 4))
    features = g.relu(g.conv("backbone.stem", "image", 4, 2, 3, 3))
    g.conv("backbone.fpn_output2", features, 4, 4, 1, 1)
    g.nodes[-1].output[0] = p2 = "p2"
    coarse = g.conv("head.predictor", p2, 3, 4, 1, 1)
    scales = g.constant("scales", np.array([1, 1, 4, 4], np.float32))
    fine = g.node("Resize", "step0.resize", coarse, "", scales, mode="linear")
    planes = [
        g.node("Gather", f"step0.gather_{i}", fine, g.constant(f"c{i}", np.int64(i)), axis=1)
        for i in range(2)
    ]
    margin = g.node("Abs", "step0.abs", g.node("Sub", "step0.sub", *planes))
    flat = g.constant("flat", np.array([1, height * width]))
    unsure = g.node("Neg", "step0.neg", g.node("Reshape", "step0.reshape", margin, flat))
    plugin = {"plugin_namespace": "pointrend", "plugin_version": "1", "domain": "pointrend"}
    indices = g.node("PointRendUncertain", "step0.uncertain", unsure, k=k, **plugin)
    points = g.node("Concat", POINTS.removesuffix(".out"), *_centres(g, indices, hw), axis=-1)
    sampled = g.node("PointRendSample", "point_head.sample", p2, points, **plugin)
    logits = g.node(
        "Conv",
        "point_head.predictor",
        sampled,
        g.weight("point_head.predictor.weight", 3, 4, 1),
        g.bias("point_head.predictor", 3),
    )
    g.node("Sigmoid", "scores", logits)
    g.nodes[-1].output[0] = "scores"
    g.node("ArgMax", "labels", logits, axis=1, keepdims=0)
    g.nodes[-1].output[0] = labels_name
    return _finished(g, hw, k, labels_name)


def _centres(g: Graph, indices: str, hw: HW) -> list[str]:
    """x and y of cell centres, (1, k, 1) each, as the exported graphs compute them."""
    height, width = hw
    wide = g.constant("width", np.int64(width))
    rows = g.node("Div", "step0.div", indices, wide)
    columns = g.node("Sub", "step0.columns", indices, g.node("Mul", "step0.mul", rows, wide))
    last = g.constant("last", np.array([-1]))
    found = []
    for axis, cells, size in (("x", columns, width), ("y", rows, height)):
        step_size = g.constant(f"step_{axis}", np.float32(1 / size))
        half = g.constant(f"half_{axis}", np.float32(0.5 / size))
        number = g.node("Cast", f"step0.cast_{axis}", cells, to=TensorProto.FLOAT)
        scaled = g.node("Mul", f"step0.scaled_{axis}", number, step_size)
        centre = g.node("Add", f"step0.centre_{axis}", scaled, half)
        found.append(g.node("Unsqueeze", f"step0.{axis}", centre, last))
    return found


def _finished(g: Graph, hw: HW, k: int, labels_name: str) -> onnx.ModelProto:
    height, width = hw
    sizes = (1, 4, height // 4, width // 4)
    outputs = [
        helper.make_tensor_value_info(labels_name, TensorProto.INT64, (1, k)),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 3, k)),
        helper.make_tensor_value_info("p2", TensorProto.FLOAT, sizes),
    ]
    graph = helper.make_graph(
        g.nodes,
        "step",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, g.inputs["image"])],
        outputs,
        [numpy_helper.from_array(values, name) for name, values in g.constants.items()],
        value_info=[
            helper.make_tensor_value_info("step0.uncertain.out", TensorProto.INT64, (1, k)),
            helper.make_tensor_value_info("point_head.sample.out", TensorProto.FLOAT, (1, 4, k)),
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pointrend", 1)]
    model = attach_bodies(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def picture(hw: HW, seed: int = 0) -> np.ndarray:
    """Input of the step on a grid: normal noise."""
    shape = (1, 2, hw[0] // 4, hw[1] // 4)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
