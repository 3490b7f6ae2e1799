"""The command lines that build the same engine with NVIDIA's own tool."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from pointrend_deploy.engine.flavour import Flavour
from pointrend_deploy.engine.graphs import in_form, read_graph
from pointrend_deploy.engine.targets import Gpu, Target
from pointrend_deploy.engine.trtexec import command_lines
from pointrend_deploy.errors import DeployError
from tests.conftest import Exporter
from tests.engine.graphs import conv_graph

RTX = Target(Flavour("tensorrt_rtx", "1.7.1"), 120)
ORIN = Target(Flavour("tensorrt", "10.3.0"), 87, Gpu("Orin", 87))


@pytest.mark.parametrize("ops", ["plugin", "native"])
def test_the_first_line_makes_the_form_that_build_uses(
    exported: Exporter, tmp_path: Path, ops: str
) -> None:
    graph = exported() / "model.onnx"
    form, _ = command_lines(graph, ORIN, ops, 64, {}, None)  # type: ignore[arg-type]
    program = shlex.split(form)
    assert program[0] == "python"
    subprocess.run([sys.executable, *program[1:]], check=True, cwd=tmp_path)
    made = onnx.load(tmp_path / f"model.{ops}.onnx")
    assert made == in_form(read_graph(graph), ops)  # type: ignore[arg-type]


def test_a_jetson(exported: Exporter) -> None:
    graph = exported() / "model.onnx"
    _, line = command_lines(graph, ORIN, "plugin", 512, {}, Path("/lib/plugins.so"))
    assert shlex.split(line) == [
        "trtexec",
        "--onnx=model.plugin.onnx",
        "--saveEngine=model.engine",
        "--noTF32",
        "--memPoolSize=workspace:512",
        "--profilingVerbosity=detailed",
        "--skipInference",
        "--stronglyTyped",
        "--timingCacheFile=timing.cache",
        "--staticPlugins=/lib/plugins.so",
    ]


def test_dynamic_dimensions(tmp_path: Path) -> None:
    model = conv_graph()
    model.graph.input.append(helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ("R", 4)))
    path = tmp_path / "masks.onnx"
    onnx.save(model, path)
    line, note = command_lines(path, RTX, "native", 64, {"R": (1, 50, 100)}, None)
    assert note.startswith("#") and "12.0" in note
    words = shlex.split(line)
    assert words[:2] == ["tensorrt_rtx", f"--onnx={path}"]
    assert words[-3:] == [
        "--minShapes=boxes:1x4",
        "--optShapes=boxes:50x4",
        "--maxShapes=boxes:100x4",
    ]
    with pytest.raises(DeployError, match="no custom node"):
        command_lines(path, RTX, "plugin", 64, {"R": (1, 50, 100)}, None)
