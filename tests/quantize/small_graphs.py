"""Hand-made graphs with the node names of real ones, small enough to run in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


class Graph:
    """Nodes one after the other; values are ``<node>.out``, weights random and reproducible."""

    def __init__(self, **inputs: Sequence[int | str]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.random = np.random.default_rng(7)

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; its name."""
        self.nodes.append(helper.make_node(op, inputs, [f"{name}.out"], name, **attributes))
        return f"{name}.out"

    def constant(self, name: str, values: Any) -> str:
        """Add a constant; its name."""
        self.constants[name] = np.asarray(values)
        return name

    def weight(self, name: str, *shape: int) -> str:
        """A weight that keeps activations near 1, or one of that name which is there."""
        if name not in self.constants:
            fan = np.sqrt(np.prod(shape[1:]))
            self.constants[name] = (self.random.normal(size=shape) / fan).astype(np.float32)
        return name

    def conv(self, name: str, x: str, *shape: int, module: str = "", **attributes: Any) -> str:
        """A convolution with a bias and ReLU-free output, padded to keep its size."""
        module = module or name
        pads = attributes.pop("pads", [shape[2] // 2] * 4)
        inputs = x, self.weight(f"{module}.weight", *shape), self.bias(module, shape[0])
        return self.node("Conv", name, *inputs, pads=pads, **attributes)

    def bias(self, module: str, channels: int) -> str:
        """A bias."""
        if f"{module}.bias" not in self.constants:
            values = self.random.normal(size=channels).astype(np.float32) / 4
            self.constants[f"{module}.bias"] = values
        return f"{module}.bias"

    def relu(self, x: str) -> str:
        """A ReLU, named after what it follows."""
        return self.node("Relu", x.removesuffix("out") + "relu", x)

    def model(self, *outputs: str, opset: int = 18) -> onnx.ModelProto:
        """The graph, checked, with the shape of every value."""
        graph = helper.make_graph(
            self.nodes,
            "small",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in self.inputs.items()
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(values, name) for name, values in self.constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        made.ir_version = 8
        made = onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
        onnx.checker.check_model(made, full_check=True)
        return made


def residual_pyramid() -> onnx.ModelProto:
    """A stem with max pooling, a block with and one without a shortcut convolution, two levels."""
    g = Graph(image=(1, 3, 32, 32))
    body = "backbone.bottom_up"
    x = g.relu(g.conv(f"{body}.stem.conv1", "image", 8, 3, 3, 3, strides=[2, 2]))
    x = g.node("MaxPool", f"{body}.stem.maxpool", x, kernel_shape=[2, 2], strides=[2, 2])
    side = g.conv(f"{body}.res2.0.shortcut", x, 16, 8, 1, 1)
    y = g.relu(g.conv(f"{body}.res2.0.conv1", x, 8, 8, 1, 1))
    y = g.conv(f"{body}.res2.0.conv2", y, 16, 8, 3, 3)
    res2 = g.relu(g.node("Add", f"{body}.res2.0.add", y, side))
    y = g.relu(g.conv(f"{body}.res2.1.conv1", res2, 8, 16, 1, 1))
    y = g.conv(f"{body}.res2.1.conv2", y, 16, 8, 3, 3)
    res2 = g.relu(g.node("Add", f"{body}.res2.1.add", res2, y))
    res3 = g.relu(g.conv(f"{body}.res3.0.depthwise", res2, 16, 1, 3, 3, strides=[2, 2], group=16))
    top = g.conv("backbone.fpn_lateral3", res3, 8, 16, 1, 1)
    up = g.node("Resize", "backbone.resize", top, "", g.constant("scales", _TWICE), mode="nearest")
    low = g.node("Add", "backbone.add", g.conv("backbone.fpn_lateral2", res2, 8, 16, 1, 1), up)
    p2 = g.conv("backbone.fpn_output2", low, 8, 8, 3, 3)
    y = g.relu(g.conv("sem_seg_head.coarse_sem_seg_head.p2.0", p2, 8, 8, 3, 3))
    coarse = g.conv("sem_seg_head.coarse_sem_seg_head.predictor", y, 4, 8, 1, 1)
    fine = g.conv("sem_seg_head.point_head", p2, 6, 8, 1, 1)
    y = g.conv("sem_seg_head.point_head.step0", g.relu(fine), 4, 6, 1, 1)
    return g.model(coarse, y)


_TWICE = np.array([1, 1, 2, 2], np.float32)


def shared_levels() -> onnx.ModelProto:
    """The RPN head over two levels, with one set of weights."""
    g = Graph(p2=(1, 8, 16, 16), p3=(1, 8, 8, 8))
    head = "proposal_generator.rpn_head"
    outputs = []
    for level in ("p2", "p3"):
        x = g.relu(g.conv(f"{head}.conv.{level}", level, 8, 8, 3, 3, module=f"{head}.conv"))
        for name, channels in (("objectness_logits", 3), ("anchor_deltas", 12)):
            module = f"{head}.{name}"
            outputs.append(g.conv(f"{module}.{level}", x, channels, 8, 1, 1, module=module))
    return g.model(*outputs)


def instance_heads() -> onnx.ModelProto:
    """Box head, coarse mask head and what an instance point head is written as, over R RoIs."""
    g = Graph(rois=("R", 8, 4, 4), points=("R", 6, 5))
    flat = g.node("Flatten", "roi_heads.box_head.reshape", "rois")
    fc1 = g.relu(_gemm(g, "roi_heads.box_head.fc1", flat, 16, 128))
    scores = _gemm(g, "roi_heads.box_predictor.cls_score", fc1, 3, 16)
    deltas = _gemm(g, "roi_heads.box_predictor.bbox_pred", fc1, 8, 16)
    coarse = "roi_heads.mask_head.coarse_head"
    x = g.conv(
        f"{coarse}.reduce_spatial_dim_conv", "rois", 8, 8, 2, 2, strides=[2, 2], pads=[0] * 4
    )
    x = g.node("Flatten", f"{coarse}.reshape", g.relu(x))
    x = g.relu(_gemm(g, f"{coarse}.fc1", x, 12, 32))
    x = _gemm(g, f"{coarse}.prediction", x, 20, 12)
    head = "roi_heads.mask_head.point_head"
    turned = g.node("Transpose", f"{head}.transpose", "points", perm=[0, 2, 1])
    hidden = g.node("MatMul", head, turned, g.weight(f"{head}.weight", 1, 6, 10))
    rows = g.constant("roi_heads.mask_head.rows", g.random.normal(size=(10, 3)).astype(np.float32))
    column = g.node("Gather", f"{head}.gather", rows, g.constant("classes", np.array([1])), axis=1)
    logits = g.node("MatMul", f"{head}.matmul_2", hidden, column)
    both = g.node("MatMul", "roi_heads.mask_head.matmul", turned, "points")
    return g.model(scores, deltas, x, logits, both)


def standard_mask_head() -> onnx.ModelProto:
    """One convolution, the deconvolution, and the predictor of each RoI's own class."""
    g = Graph(rois=("R", 8, 4, 4))
    head = "roi_heads.mask_head"
    x = g.relu(g.conv(f"{head}.mask_fcn1", "rois", 8, 8, 3, 3))
    weight = g.weight(f"{head}.deconv.weight", 8, 6, 2, 2)
    bias = g.bias(f"{head}.deconv", 6)
    x = g.relu(g.node("ConvTranspose", f"{head}.deconv", x, weight, bias, strides=[2, 2]))
    x = g.node("Reshape", f"{head}.reshape_1", x, g.constant("shape", np.array([-1, 6, 64])))
    rows = g.constant(f"{head}.rows", g.random.normal(size=(3, 6)).astype(np.float32))
    row = g.node("Gather", f"{head}.gather", rows, g.constant("classes", np.array([2])))
    return g.model(g.node("MatMul", head, row, x))


def _gemm(g: Graph, name: str, x: str, outputs: int, inputs: int) -> str:
    weight, bias = g.weight(f"{name}.weight", outputs, inputs), g.bias(name, outputs)
    return g.node("Gemm", name, x, weight, bias, transB=1)
