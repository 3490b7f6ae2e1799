"""The FP16 graph: types, names, casts, weights, and that ONNX Runtime computes the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import check_contract
from pointrend_deploy.graph.passes.bodies import attach_bodies, inline_bodies
from pointrend_deploy.onnx_session import open_session
from pointrend_deploy.quantize.check import FP16_TYPES, expected_like
from pointrend_deploy.quantize.fp16 import to_half
from tests.fixtures.deciding_graphs import picture, step
from tests.fixtures.small_graphs import Graph
from tests.quantize.test_islands import WITH_WEIGHTS, parsed

HW = (24, 40)


def answers(model: ModelProto) -> dict[str, np.ndarray]:
    session = open_session(model.SerializeToString(), threads=1)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": picture(HW)}), strict=True))


def weights(model: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("native", [False, True])
def test_it_is_sound_and_the_same_from_outside(native: bool) -> None:
    model = inline_bodies(step(HW)) if native else step(HW)
    half = to_half(model).model
    onnx.checker.check_model(half, full_check=True)
    check_contract(half, expected_like(model, FP16_TYPES))
    for ours, theirs in (
        (half.graph.input, model.graph.input),
        (half.graph.output, model.graph.output),
    ):
        assert [(v.name, v.type) for v in ours] == [(v.name, v.type) for v in theirs]
    names = [node.name for node in half.graph.node if ".to_fp" not in node.name]
    assert names == [node.name for node in model.graph.node]


def test_the_contract_of_an_fp32_graph_refuses_it() -> None:
    model = step(HW)
    with pytest.raises(DeployError, match="float16"):
        check_contract(to_half(model).model, expected_like(model, frozenset({"float32", "int64"})))


@pytest.mark.parametrize("native", [False, True])
def test_onnx_runtime_computes_what_fp32_gives_but_for_rounding(native: bool) -> None:
    model = inline_bodies(step(HW)) if native else step(HW)
    expected, found = answers(model), answers(to_half(model).model)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
    np.testing.assert_allclose(found["p2"], expected["p2"], atol=0.02)
    assert (found["p2"] != expected["p2"]).mean() > 0.5  # it was rounded
    same = np.isin(found["labels"], expected["labels"]).mean()
    assert same == 1.0
    assert abs(found["scores"].mean() - expected["scores"].mean()) < 0.01


def test_the_input_is_left_alone_and_bytes_repeat() -> None:
    model = step(HW)
    before = model.SerializeToString(deterministic=True)
    first = to_half(model).model.SerializeToString(deterministic=True)
    assert model.SerializeToString(deterministic=True) == before
    assert to_half(model).model.SerializeToString(deterministic=True) == first


def test_every_value_is_cast_once_a_type_where_it_is_made() -> None:
    half = to_half(step(HW), ["backbone.stem"]).model
    casts = Counter((n.input[0], n.attribute[0].i) for n in half.graph.node if ".to_" in n.name)
    assert casts == Counter(
        {
            ("backbone.stem.bounded.out", TensorProto.FLOAT16): 1,
            ("p2.fp16", TensorProto.FLOAT): 1,
            ("head.predictor.out", TensorProto.FLOAT): 1,
            ("point_head.predictor.out", TensorProto.FLOAT): 1,
        }
    )
    order = [node.name for node in half.graph.node]
    for name in ("head.predictor", "point_head.predictor"):
        assert order[order.index(name) + 1].startswith(f"{name}.to_")
    stem = order.index("backbone.stem")
    assert order[stem + 1 : stem + 3] == ["backbone.stem.bounded", "backbone.stem.to_fp16"]


def test_every_value_says_its_type() -> None:
    half = to_half(step(HW), ["backbone.stem"]).model
    said = {v.name for v in [*half.graph.value_info, *half.graph.output]}
    assert {name for node in half.graph.node for name in node.output} <= said
    inferred = onnx.shape_inference.infer_shapes(half, check_type=True, strict_mode=True)
    assert {v.name: v.type for v in inferred.graph.value_info} == {
        v.name: v.type for v in half.graph.value_info
    }


def test_a_layer_kept_in_fp32_computes_in_it() -> None:
    half = to_half(step(HW), ["backbone.stem", "backbone.stem.relu", "no.such.node"])
    assert half.fp32_layers == ("backbone.stem",)
    assert weights(half.model)["backbone.stem.weight"].dtype == np.float32
    assert weights(half.model)["backbone.fpn_output2.weight"].dtype == np.float16
    assert to_half(step(HW)).fp32_layers == ()


def test_a_graph_kept_whole_is_the_fp32_graph() -> None:
    model = step(HW)
    names = [node.name for node in model.graph.node]
    half = to_half(model, names).model
    assert [node.name for node in half.graph.node] == names
    for name, value in answers(model).items():
        np.testing.assert_array_equal(answers(half)[name], value)


SHARED = """
g (float[1,2,4,4] image) => (float[1,2,4,4] out, float[1,2,4,4] other)
<float[2,2,1,1] w = {1.0, 2.0, 3.0, 1e-9}, float c = {0.5}> {
    a = Conv (image, w)
    b = Mul (a, c)
    out = Conv (b, w)
    other = Mul (out, c)
}
"""


def test_a_constant_read_in_both_types_is_stored_in_both() -> None:
    half = to_half(parsed(SHARED)).model
    stored = weights(half)
    assert stored["c"].dtype == np.float16
    assert stored["c.fp32"].dtype == np.float32
    nodes = {node.name: node for node in half.graph.node}
    assert (nodes["b"].input[1], nodes["other"].input[1]) == ("c", "c.fp32")


def test_a_value_the_graph_gives_and_reads_is_half_inside() -> None:
    half = to_half(step(HW)).model
    nodes = {node.name: node for node in half.graph.node}
    assert nodes["backbone.fpn_output2"].output[0] == "p2.fp16"
    assert nodes["head.predictor"].input[0] == "p2.fp16"
    assert nodes["p2.to_fp32"].output[0] == "p2"


def test_a_value_the_graph_gives_in_fp32_is_cast_for_a_layer_that_reads_it() -> None:
    g = Graph(image=(1, 3, 8, 8))
    given = g.node("Relu", "given", "image")
    model = g.model(given, g.conv("backbone.fpn_output2", given, 4, 3, 3, 3))
    half = to_half(model).model
    onnx.checker.check_model(half, full_check=True)
    nodes = {node.name: node for node in half.graph.node}
    assert nodes["given"].output[0] == "given.out"
    assert nodes["backbone.fpn_output2"].input[0] == "given.to_fp16.out"


def test_weights_too_small_for_fp16_count_as_nothing() -> None:
    assert weights(to_half(parsed(SHARED)).model)["w"].reshape(-1)[3] == 0


def test_minus_infinity_stays_what_it_is() -> None:
    half = to_half(parsed(WITH_WEIGHTS % ("float c = {-inf}", "Max (a, c)"))).model
    assert weights(half)["c"] == -np.inf
    assert weights(half)["c"].dtype == np.float16


@pytest.mark.parametrize("size", [65520.0, -1e6])
def test_weights_beyond_fp16_are_refused_by_layer(size: float) -> None:
    model = step(HW)
    tensor = next(t for t in model.graph.initializer if t.name == "head.predictor.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[1, 2] = size
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(DeployError) as error:
        to_half(model)
    assert "layer head.predictor:" in error.value.message
    assert "--keep-fp32 head.predictor" in error.value.hint
    kept = to_half(model, ["head.predictor"])
    assert kept.fp32_layers == ("head.predictor",)


def test_the_largest_number_of_fp16_is_not_beyond_it() -> None:
    text = SHARED.replace("1e-9", "65519.0")
    assert weights(to_half(parsed(text)).model)["w"].max() == 65504


def test_gathered_weights_beyond_fp16_are_refused_by_the_layer_that_reads_them() -> None:
    text = """
    g (float[1,2] image, int64[1] classes) => (float[1,1] out)
    <float[3,2] rows = {1.0, 2.0, 3.0, 4.0, 5.0, 7e4}> {
        row = Gather (rows, classes)
        turned = Transpose <perm = [1, 0]> (row)
        out = MatMul (image, turned)
    }
    """
    with pytest.raises(DeployError, match=r"layer out: rows reaches 70000"):
        to_half(parsed(text))
    kept = to_half(parsed(text), ["row", "turned", "out"])
    assert kept.fp32_layers == ("out",)


def test_only_an_fp32_graph_with_names_is_taken() -> None:
    with pytest.raises(DeployError, match="float16"):
        to_half(to_half(step(HW)).model)
    unnamed = step(HW)
    for node in unnamed.graph.node:
        node.name = ""
    with pytest.raises(DeployError, match="names"):
        to_half(unnamed)


def grid_sample_types(model: ModelProto) -> tuple[int, ...]:
    """Types of the inputs of the one GridSample there is once bodies are in place."""
    inlined = inline_bodies(model)
    said = [*inlined.graph.value_info, *inlined.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in said}
    (sampler,) = (node for node in inlined.graph.node if node.op_type == "GridSample")
    return tuple(types[name] for name in sampler.input)


def test_inside_the_sampler_features_and_grid_are_fp32() -> None:
    half = to_half(step(HW)).model
    assert grid_sample_types(half) == (TensorProto.FLOAT, TensorProto.FLOAT)
    assert grid_sample_types(to_half(inline_bodies(step(HW))).model) == (1, 1)
    del half.functions[:]
    assert grid_sample_types(attach_bodies(half)) == (TensorProto.FLOAT16, TensorProto.FLOAT)
