"""The benchmark program at a small size: all forms agree and every figure is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import onnx
from onnx import TensorProto, helper

from benchmarks.graph_measure import graph_size
from tests.repository import ROOT


def test_instance_subdivision_benchmark() -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "instance_subdivision.py"), "--json"]
    sizes = ["--rois", "3", "--p2", "20x28", "--classes", "60", "--channels", "8"]
    done = subprocess.run(
        [*program, *sizes, "--fc-dim", "16", "--runs", "2"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert min(result["sign_agreement"].values()) > 0.999
    # A mask that is all inside or all outside would agree whatever its logits.
    assert 0.05 < result["share_inside"] < 0.95
    for form in ("detectron2", "ours"):
        figures = result[form]
        assert figures["nodes"] > 50
        assert figures["flops"] > 0
        assert figures["arena_bytes"] > 0.9 * figures["peak_activation_bytes"]
    for form in ("reference", "detectron2", "ours", "plugin"):
        assert result[form]["median_ms"] >= result[form]["minimum_ms"] > 0
    ours, theirs = result["ours"], result["detectron2"]
    assert ours["arena_bytes"] < theirs["arena_bytes"] / 5
    assert ours["flops"] < theirs["flops"]


def test_products_are_counted_by_hand() -> None:
    """(2, 3, 4) by (2, 4, 5), and (6, 7) turned by (6, 8): multiply-adds are two each."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "b"], ["y"]),
            helper.make_node("Gemm", ["c", "d"], ["z"], transA=1),
        ],
        "small",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in {"a": [2, 3, 4], "b": [2, 4, 5], "c": [6, 7], "d": [6, 8]}.items()
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 5]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [7, 8]),
        ],
    )
    size = graph_size(helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    assert size.flops == 2 * 2 * 3 * 5 * 4 + 2 * 7 * 8 * 6
