"""NVIDIA's own builder takes the graph with the plugins: every build-time callback is called.

TensorRT-RTX builds without a GPU. The kernels do not run here; test_kernels.py is about them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.conftest import Exporter
from tests.engine.rtx import built_library, rtx_needed


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rtx_needed()
    return built_library(tmp_path_factory)


@pytest.fixture(scope="module")
def model(exported: Exporter) -> onnx.ModelProto:
    """The plugin flavour without function bodies, so that nothing but a plugin can serve."""
    proto = onnx.load(exported() / "model.onnx")
    del proto.functions[:]
    return proto


def built(library: Path, proto: onnx.ModelProto, folder: Path, target: str) -> dict[str, Any]:
    path = folder / "model.onnx"
    onnx.save(proto, path)
    program = Path(__file__).parent / "rtx_build.py"
    command = [sys.executable, program, library, path, target]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("target", ["SM86", "SM120"])
def test_every_custom_node_becomes_a_plugin(
    library: Path, model: onnx.ModelProto, tmp_path: Path, target: str
) -> None:
    custom = [node for node in model.graph.node if node.domain == "pointrend"]
    ops = {node.op_type for node in custom}
    assert ops == {
        *("PointRendSampleCells", "PointRendUncertain", "PointRendUpsampleUncertainty"),
        *("PointRendUpsampleLabels", "PointRendRefineLogits", "PointRendRefineLabels"),
    }
    answer = built(library, model, tmp_path, target)
    assert ops <= set(answer["creators"])
    assert answer["errors"] == []
    assert answer["layers"]["PLUGIN_V3"] == len(custom)
    assert answer["engine_bytes"] > 0


@pytest.mark.parametrize("k", [None, 0])
def test_a_node_without_a_good_k_is_refused(
    library: Path, model: onnx.ModelProto, tmp_path: Path, k: int | None
) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    node = next(n for n in broken.graph.node if n.op_type == "PointRendUncertain")
    attributes = [a for a in node.attribute if a.name != "k"]
    attributes += [onnx.helper.make_attribute("k", k)] if k is not None else []
    del node.attribute[:]
    node.attribute.extend(attributes)
    answer = built(library, broken, tmp_path, "SM86")
    assert answer["errors"] and answer["engine_bytes"] == 0
