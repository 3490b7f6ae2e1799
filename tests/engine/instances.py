"""A split instance bundle of few nodes: what a builder meets in one, without its meaning."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from pointrend_deploy.bundle.folder import DETECTOR, MASKS
from tests.fixtures.tiny_bundle import write_bundle
from tests.fixtures.tiny_instances import things_manifest

PLUGIN = {"plugin_namespace": "pointrend", "plugin_version": "1"}
ROI_ALIGN = {"first_level": 2, "levels": 1, "side": 7}
NMS = {"iou_threshold": 0.5, "score_threshold": 0.05}


def split_bundle(path: Path) -> Path:
    """detector.onnx with suppression, masks.onnx with pooling over a dynamic number of RoIs."""
    manifest = msgspec.structs.replace(things_manifest(layout="split"), ops="plugin")
    assert manifest.instance is not None
    graphs = {
        DETECTOR: _detector(manifest.instance.detections).SerializeToString(),
        MASKS: _masks().SerializeToString(),
    }
    return write_bundle(path, manifest, graphs)


def _detector(detections: int) -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["p2"], name="trunk", strides=[4, 4]),
        helper.make_node("Reshape", ["p2", "groups"], ["scores"], name="scores"),
        _custom("PointRendNMS", ["boxes", "scores"], ["kept", "count"], k=detections, **NMS),
    ]
    constants = {
        "w": np.ones((4, 3, 4, 4), np.float32),
        "groups": np.array([1, 4, 64]),
        "boxes": np.zeros((1, 4, 64, 4), np.float32),
    }
    return _model(
        nodes,
        [("image", TensorProto.FLOAT, (1, 3, 32, 32))],
        [
            ("count", TensorProto.INT64, (1,)),
            ("kept", TensorProto.INT64, (1, detections)),
            ("p2", TensorProto.FLOAT, (1, 4, 8, 8)),
        ],
        constants,
    )


def _masks() -> ModelProto:
    nodes = [
        helper.make_node("Unsqueeze", ["boxes", "first"], ["of_one"], name="of_one"),
        _custom("PointRendRoIAlign", ["of_one", *["p2"] * 4], ["pooled"], **ROI_ALIGN),
        helper.make_node("Conv", ["pooled", "w"], ["masks"], name="head"),
    ]
    constants = {"w": np.ones((1, 4, 1, 1), np.float32), "first": np.array([0])}
    return _model(
        nodes,
        [("boxes", TensorProto.FLOAT, ("R", 4)), ("p2", TensorProto.FLOAT, (1, 4, 8, 8))],
        [("masks", TensorProto.FLOAT, ("R", 1, 7, 7))],
        constants,
    )


def _custom(op: str, inputs: list[str], outputs: list[str], **attributes: object) -> NodeProto:
    return helper.make_node(
        op, inputs, outputs, name=op.lower(), domain="pointrend", **attributes, **PLUGIN
    )


Values = list[tuple[str, int, tuple[object, ...]]]


def _model(
    nodes: list[NodeProto], inputs: Values, outputs: Values, constants: dict[str, np.ndarray]
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pointrend", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return shape_inference.infer_shapes(model)
