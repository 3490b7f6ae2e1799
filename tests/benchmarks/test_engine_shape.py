"""The benchmark of engines' shapes: what its table says, and what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import onnx
import pytest

from benchmarks import engine_shape
from benchmarks.engine_shape import MAIN, MODELS, Model, graphs_of, in_precision, table
from pointrend_deploy.bundle.records import EngineShape, PartShape
from tests.conftest import Exporter
from tests.engine.graphs import conv_graph
from tests.repository import ROOT

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("engine_shape*.json"))


def test_a_line_an_engine_and_one_for_each_part() -> None:
    shape = EngineShape(
        layers=981,
        plugins={"PointRendSample": 101, "PointRendNMS": 6},
        reformats=88,
        bytes=4_899_092_116,
        constant_bytes=5,
        parts={
            "backbone": PartShape(layers=67, plugins=0, reformats=1, bytes=427_202_560),
            "mask head": PartShape(layers=914, plugins=107, reformats=87, bytes=4_471_889_556),
        },
        sizes={"R": 100},
    )
    row = {
        "model": "one",
        "graph": "masks",
        "canvas": "480x640",
        "precision": "fp16",
        "shape": msgspec.to_builtins(shape),
    }
    assert table([row]).splitlines() == [
        "| engine | part | layers | plugins | reformats | MB | ms at 205 GB/s | ms at 102 GB/s |",
        "|---|---|---|---|---|---|---|---|",
        "| one (masks) 480x640, R = 100, fp16 | all | 981 | 107 | 88 | 4,899.1 | 23.92 | 48.03 |",
        "|  | backbone | 67 | 0 | 1 | 427.2 | 2.09 | 4.19 |",
        "|  | mask head | 914 | 107 | 87 | 4,471.9 | 21.84 | 43.84 |",
    ]


def test_a_graph_is_traced_once_and_again_when_the_code_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []

    def trace(model: Model, ops: str) -> dict[str, onnx.ModelProto]:
        traced.append(model)
        return {"model": conv_graph()}

    monkeypatch.setattr(engine_shape, "traced", trace)
    for _ in range(2):
        assert list(graphs_of(MAIN[0], "plugin", tmp_path)) == ["model"]
    assert traced == [MAIN[0]]
    graphs_of(MAIN[1], "plugin", tmp_path)
    monkeypatch.setattr(engine_shape, "code_digest", lambda model: "another")
    graphs_of(MAIN[0], "plugin", tmp_path)
    assert traced == [MAIN[0], MAIN[1], MAIN[0]]
    assert len(list(tmp_path.iterdir())) == 2, "the outdated one is gone"


def test_each_precision_is_that_of_quantize(exported: Exporter) -> None:
    graph = onnx.load(exported() / "model.onnx")
    assert in_precision(graph, "fp32") is graph
    half = in_precision(graph, "fp16")
    assert {w.data_type for w in half.graph.initializer} >= {onnx.TensorProto.FLOAT16}
    int8 = in_precision(graph, "int8")
    assert any(node.op_type == "QuantizeLinear" for node in int8.graph.node)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_recorded_runs(path: Path) -> None:
    rows = json.loads(path.read_text())["rows"]
    models = {row["model"] for row in rows}
    assert {model.name for model in MAIN} <= models <= {model.name for model in MODELS}
    lines = table(rows).splitlines()
    shapes = [msgspec.convert(row["shape"], EngineShape) for row in rows]
    assert len(lines) == 2 + len(rows) + sum(len(shape.parts) for shape in shapes)
    for shape in shapes:
        assert sum(part.bytes for part in shape.parts.values()) == shape.bytes
