"""NVIDIA's own builder takes nodes of the two ops of instance models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.engine.rtx import built_library, rtx_needed

ROI_ALIGN = {"first_level": 2, "levels": 3, "side": 7}
NMS = {"k": 100, "iou_threshold": 0.5, "score_threshold": 0.05}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rtx_needed()
    return built_library(tmp_path_factory)


def nodes(features: int, roi_align: dict[str, Any], nms: dict[str, Any]) -> onnx.ModelProto:
    """Both ops over inputs of the graph; the pooling reads three levels, the last one twice."""
    plugin = {"plugin_namespace": "pointrend", "plugin_version": "1"}
    shapes = {"boxes": [2, 20, 4], "of_classes": [2, 80, 50, 4], "scores": [2, 80, 50]}
    maps = {f"p{i}": [2, 16, 256 >> i, 320 >> i] for i in (2, 3, 4)}
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    inputs += [value(name, features, shape) for name, shape in maps.items()]
    outputs = [
        value("pooled", features, [40, 16, 7, 7]),
        value("indices", TensorProto.INT64, [2, 100]),
        value("count", TensorProto.INT64, [2]),
    ]
    pooling = helper.make_node(
        *("PointRendRoIAlign", ["boxes", "p2", "p3", "p4", "p4"], ["pooled"]),
        domain="pointrend",
        **plugin,
        **roi_align,
    )
    suppression = helper.make_node(
        *("PointRendNMS", ["of_classes", "scores"], ["indices", "count"]),
        domain="pointrend",
        **plugin,
        **nms,
    )
    graph = helper.make_graph([pooling, suppression], "two_ops", inputs, outputs)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pointrend", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def built(library: Path, proto: onnx.ModelProto, folder: Path) -> dict[str, Any]:
    path = folder / "model.onnx"
    onnx.save(proto, path)
    program = Path(__file__).parent / "rtx_build.py"
    command = [sys.executable, program, library, path, "SM86"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("features", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_both_ops_become_plugins(library: Path, tmp_path: Path, features: int) -> None:
    answer = built(library, nodes(features, ROI_ALIGN, NMS), tmp_path)
    assert answer["errors"] == []
    assert answer["layers"]["PLUGIN_V3"] == 2
    assert answer["engine_bytes"] > 0


@pytest.mark.parametrize(
    ("roi_align", "nms"),
    [
        ({**ROI_ALIGN, "levels": 5}, NMS),
        ({"first_level": 2, "levels": 3}, NMS),
        (ROI_ALIGN, {**NMS, "k": 3841}),
        (ROI_ALIGN, {**NMS, "iou_threshold": 1}),  # an integer
    ],
)
def test_bad_attributes_are_refused(
    library: Path, tmp_path: Path, roi_align: dict[str, Any], nms: dict[str, Any]
) -> None:
    answer = built(library, nodes(TensorProto.FLOAT, roi_align, nms), tmp_path)
    assert answer["errors"] and answer["engine_bytes"] == 0
