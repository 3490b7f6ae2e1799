"""What FP32 layers hand on to FP16 ones ends at 65504."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pointrend_deploy.onnx_session import open_session
from pointrend_deploy.quantize.fp16 import saturate, to_half
from tests.fixtures.small_graphs import Graph


def two_layers() -> onnx.ModelProto:
    """``backbone.large`` gives a thousand times its input, ``backbone.small`` half of that."""
    g = Graph(image=(1, 1, 1, 4))
    g.constant("backbone.large.weight", np.full((1, 1, 1, 1), 1000.0, np.float32))
    g.constant("backbone.large.bias", np.zeros(1, np.float32))
    g.constant("backbone.small.weight", np.full((1, 1, 1, 1), 0.5, np.float32))
    g.constant("backbone.small.bias", np.zeros(1, np.float32))
    x = g.conv("backbone.large", "image", 1, 1, 1, 1)
    return g.model(g.conv("backbone.small", x, 1, 1, 1, 1))


def answers(model: onnx.ModelProto) -> list[float]:
    image = np.array([2.0, -3.0, 1000.0, -1000.0], np.float32).reshape(1, 1, 1, 4)
    found = open_session(model.SerializeToString()).run(None, {"image": image})[0]
    return [float(value) for value in found.reshape(-1)]


def test_what_is_beyond_fp16_saturates() -> None:
    half = to_half(two_layers(), ["backbone.large"]).model
    assert [node.op_type for node in half.graph.node][1:4] == ["Clip", "Cast", "Conv"]
    assert answers(half) == [1000.0, -1500.0, 32752.0, -32752.0]


def test_nothing_else_changes() -> None:
    model = to_half(two_layers()).model
    before = model.SerializeToString(deterministic=True)
    saturate(model, ())
    assert model.SerializeToString(deterministic=True) == before
    assert not any(node.op_type == "Clip" for node in model.graph.node)


@pytest.mark.parametrize("keep", ["backbone.large", "backbone.small"])
def test_its_value_is_described(keep: str) -> None:
    half = to_half(two_layers(), [keep]).model
    clips = [node for node in half.graph.node if node.op_type == "Clip"]
    assert len(clips) == (keep == "backbone.large")  # what the graph gives is float32 anyway
    kinds = {value.name: value.type.tensor_type.elem_type for value in half.graph.value_info}
    assert [kinds[clip.output[0]] for clip in clips] == [TensorProto.FLOAT] * len(clips)
    onnx.checker.check_model(half, full_check=True)
