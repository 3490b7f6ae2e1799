"""How far values reach, counted in ONNX Runtime, and which of them are FP16 in a graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from pointrend_deploy.graph.slices import with_outputs
from pointrend_deploy.onnx_session import open_session
from pointrend_deploy.quantize.extent import (
    LARGEST,
    Extents,
    HalfValue,
    counting,
    half_values,
    int8_limits,
    measuring,
    observed,
    zeroed_weights,
)
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.islands import node_types
from pointrend_deploy.quantize.placement import place
from pointrend_deploy.quantize.qdq import insert
from tests.fixtures.small_graphs import Graph


def chain() -> ModelProto:
    """``one`` multiplies by 1000, ``two`` after a ReLU by 1; ``last`` decides by an output."""
    g = Graph(image=(1, 1, 2, 3))
    for name, factor in (("one", 1000.0), ("two", 1.0), ("last", 1.0)):
        g.constant(f"backbone.{name}.weight", np.full((1, 1, 1, 1), factor, np.float32))
        g.constant(f"backbone.{name}.bias", np.zeros(1, np.float32))
    x = g.relu(g.conv("backbone.one", "image", 1, 1, 1, 1))
    return g.model(g.conv("backbone.last", g.conv("backbone.two", x, 1, 1, 1, 1), 1, 1, 1, 1))


IMAGE = np.array([[-70.0, 65.6, 65.0], [66.0, 0.0, np.inf]], np.float32).reshape(1, 1, 2, 3)


def run(made: tuple[ModelProto, tuple[str, ...]], image: np.ndarray = IMAGE) -> Extents:
    raw, outputs = with_outputs(made[0], made[1])
    extents = Extents()
    session = open_session(raw)
    for part in (image, -image):
        found = session.run(outputs, {"image": part})
        extents.add("model.onnx", dict(zip(outputs, found, strict=True)))
    return extents


def test_the_largest_absolute_number_of_all_calls() -> None:
    finite = np.where(np.isfinite(IMAGE), IMAGE, 0)
    made = measuring(chain(), ["image", "backbone.one.out", "backbone.one.relu.out"])
    found = run(made, finite).largest["model.onnx"]
    assert found == pytest.approx(
        {"image": 70.0, "backbone.one.out": 7e4, "backbone.one.relu.out": 7e4}
    )
    least = np.minimum(finite, 0)
    assert run(measuring(chain(), ["backbone.one.relu.out"]), least).largest == {
        "model.onnx": {"backbone.one.relu.out": pytest.approx(7e4)}
    }


def test_elements_that_reach_a_bound_are_counted() -> None:
    found = run(counting(chain(), {"image": 65.5, "backbone.one.relu.out": LARGEST}))
    assert found.shares["model.onnx"]["image"] == (8, 12)  # all but 65 and 0, twice
    # of the first picture 65600, 66000 and infinity; of the other 70000
    assert found.shares["model.onnx"]["backbone.one.relu.out"] == (4, 12)


def test_a_value_is_looked_at_behind_its_relu() -> None:
    model = chain()
    names = observed(model, node_types(model))
    assert "backbone.one.relu.out" in names
    assert "backbone.one.out" not in names, "a large negative number does no harm before a ReLU"
    assert {"image", "backbone.two.out"} <= set(names)


def test_what_makes_and_what_reads_a_value_in_fp16() -> None:
    model = chain()
    names = observed(model, node_types(model))
    value = "backbone.one.relu.out"
    whole = half_values(model, to_half(model).model, names)
    assert whole[value] == HalfValue(("backbone.one.relu", "backbone.one"), ("backbone.two",))
    assert whole[value].nodes == ("backbone.one", "backbone.one.relu", "backbone.two")
    kept = half_values(model, to_half(model, ["backbone.one", "backbone.one.relu"]).model, names)
    assert kept[value] == HalfValue((), ("backbone.two",))
    both = ["backbone.one", "backbone.one.relu", "backbone.two"]
    assert value not in half_values(model, to_half(model, both).model, names)


@pytest.mark.parametrize("keep", [(), ("backbone.one", "backbone.one.relu")])
def test_in_an_int8_graph_too(keep: tuple[str, ...]) -> None:
    model = chain()
    value = "backbone.one.relu.out"
    placement = place(model, keep=keep, also=["backbone.two"])
    amax = {name: 127.0 for _, _, name in placement.edges}
    half = insert(to_half(model, keep).model, placement, amax, weights_from=model)
    found = half_values(model, half, [value])[value]
    assert found.readers == ("backbone.two",)
    assert bool(found.makers) == (not keep)
    assert int8_limits(half)[value] == 127.0, "casts and clips are looked through"
    whole = insert(model, placement, amax)
    assert half_values(model, whole, [value]) == {}, "an INT8 graph with an FP32 rest has no FP16"


def test_weights_that_become_zero_are_counted() -> None:
    model = chain()
    tensor = next(t for t in model.graph.initializer if t.name == "backbone.two.weight")
    tensor.CopyFrom(numpy_helper.from_array(np.full((1, 1, 1, 1), 2e-8, np.float32), tensor.name))
    assert zeroed_weights(model, to_half(model).model) == (6, 1)
    assert zeroed_weights(model, to_half(model, ["backbone.two"]).model) == (4, 0)
    assert not any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
    onnx.checker.check_model(model)
