"""ONNX Runtime's corruption of FP16 graphs with Q/DQ: our sessions are free of it.

ONNX Runtime 1.32 stores the bias of a Conv between Q/DQ nodes as INT32 whose scale is the product
of the two scales in FP16. Here that product is below FP16's smallest number.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from pointrend_deploy import onnx_session as simulation
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import place
from pointrend_deploy.quantize.qdq import insert
from tests.fixtures.small_graphs import Array, Graph

AMAX = 0.02
"""Of the first layer's input and weights: scales of 1.6e-4, whose product FP16 stores as 0."""


def two_layers() -> tuple[onnx.ModelProto, Array]:
    """conv -> relu -> conv in FP16 and INT8, and a picture for it; the first bias is about 1."""
    g = Graph(x=(1, 8, 12, 12))
    names = "backbone.fpn_a", "backbone.fpn_b"
    weight = g.weight(f"{names[0]}.weight", 16, 8, 3, 3)
    g.constants[weight] *= AMAX / np.abs(g.constants[weight]).max()
    g.constant(f"{names[0]}.bias", np.linspace(0.5, 1.5, 16).astype(np.float32))
    y = g.relu(g.conv(names[0], "x", 16, 8, 3, 3))
    model = g.model(g.conv(names[1], y, 4, 16, 3, 3))
    x = g.random.uniform(-AMAX, AMAX, size=(1, 8, 12, 12)).astype(np.float32)
    amax = {"x": AMAX, y: 1.6}
    return insert(to_half(model).model, place(model), amax, weights_from=model), x


def literal(model: onnx.ModelProto, x: Array) -> Array:
    """Every node computed as it stands in the file."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def ours(model: onnx.ModelProto, x: Array) -> Array:
    session = simulation.open_session(model.SerializeToString(), threads=1)
    return np.asarray(session.run(None, {"x": x})[0])


def test_our_sessions_compute_what_the_nodes_say() -> None:
    model, x = two_layers()
    expected = literal(model, x)
    assert np.abs(expected).max() > 0.5
    assert np.abs(ours(model, x) - expected).max() < 2e-3


def test_the_corruption_is_real_and_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the list of optimisers to leave out, the same graph loses its bias."""
    model, x = two_layers()
    monkeypatch.setattr(simulation, "CORRUPTING_OPTIMIZERS", ())
    error = np.abs(ours(model, x) - literal(model, x)).max()
    assert not error < 0.1
