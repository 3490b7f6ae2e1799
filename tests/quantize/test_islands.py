"""What stays in FP32, and the check on a finished graph, with errors planted in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.passes.bodies import inline_bodies
from pointrend_deploy.quantize.check import check_islands
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.islands import node_types
from tests.fixtures.deciding_graphs import POINTS, step


def test_layers_and_samplers_are_half_and_what_decides_is_not() -> None:
    types = node_types(step())
    half = {name for name, kind in types.items() if kind == "float16"}
    assert half == {
        "backbone.stem",
        "backbone.stem.relu",
        "backbone.fpn_output2",
        "head.predictor",
        "point_head.sample",
        "point_head.predictor",
    }
    assert {"step0.resize", "step0.neg", "step0.concat", "scores", "labels"} <= set(types)
    assert "step0.div" not in types  # whole numbers only


def test_what_is_kept_stays_in_fp32_and_nothing_else_changes() -> None:
    types = node_types(step(), ["backbone.stem"])
    assert types == {**node_types(step()), "backbone.stem": "float32"}


def test_a_standard_sampler_is_fp32_and_its_neighbours_are_not() -> None:
    types = node_types(inline_bodies(step()))
    (sampler,) = (name for name in types if "gridsample" in name)
    assert types[sampler] == "float32"
    assert types["point_head.predictor"] == types["backbone.fpn_output2"] == "float16"


def parsed(text: str) -> ModelProto:
    """A graph in ONNX's text form; nodes are named after what they write."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {text}')
    for node in model.graph.node:
        node.name = node.output[0].removesuffix(".out")
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


WITH_WEIGHTS = """
g (float[1,2,4,4] image) => (float[1,2,4,4] out)
<float[2,2,1,1] w = {1.0, 2.0, 3.0, 4.0}, %s> {
    a = Conv (image, w)
    b = %s
    out = Conv (b, w)
}
"""


BEYOND_FP16 = {
    "float c = {1e-8}": "Add (a, c)",
    "float[1] c = {1e-8}": "Max (a, c)",
    "float c = {3.4e38}": "Min (a, c)",
    "float[2,1,1] c = {1e-8, 1.0}": "Div (a, c)",
    "float[2,1,1] c = {7e4, 1.0}": "Mul (a, c)",
}
WITHIN_FP16 = {
    "float c = {0.5}": "Mul (a, c)",
    "float c = {0.0}": "Max (a, c)",
    "float[2,1,1] c = {1e-8, 1.0}": "Mul (a, c)",  # a scale of nothing
}


@pytest.mark.parametrize(("constant", "node"), BEYOND_FP16.items())
def test_a_constant_that_fp16_cannot_hold_keeps_its_node_in_fp32(constant: str, node: str) -> None:
    assert node_types(parsed(WITH_WEIGHTS % (constant, node)))["b"] == "float32"


@pytest.mark.parametrize(("constant", "node"), WITHIN_FP16.items())
def test_a_constant_that_fp16_holds_does_not(constant: str, node: str) -> None:
    assert node_types(parsed(WITH_WEIGHTS % (constant, node)))["b"] == "float16"


OFFSETS = """
g (float[8] boxes, float[1,4,64] p2) => (float[8,4] out)
<int64[1] one = {1}, int64[2] rows = {64, 4}, float[4,4] w = {1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0,
 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0}> {
    table = Reshape (p2, rows)
    cell = Cast <to = 7> (boxes)
    left = Cast <to = 1> (cell)
    offset = Sub (boxes, left)
    weight = Unsqueeze (offset, one)
    row = Gather (table, cell)
    sampled = Mul (weight, row)
    out = MatMul (sampled, w)
}
"""


def test_coordinates_are_fp32_up_to_where_they_meet_features() -> None:
    types = node_types(parsed(OFFSETS))
    assert {name for name, kind in types.items() if kind == "float32"} == {
        "cell",
        "left",
        "offset",
        "weight",
    }
    check_islands(to_half(parsed(OFFSETS)).model)


GROUP_NORMS = """
g (float[1,4,4,4] image) => (float[1,4,4,4] out)
<int64[3] grouped = {0, 2, -1}, int64[4] whole = {1, 4, 4, 4}, float[2] ones = {1.0, 1.0},
 float[2] zeros = {0.0, 0.0}, float[4,1,1] scale = {1.0, 2.0, 3.0, 4.0},
 float[4,1,1] shift = {0.5, 0.5, 0.5, 0.5}, float[4,4,1,1] w = {1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0,
 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0}> {
    a = Conv (image, w)
    groups = Reshape (a, grouped)
    even = InstanceNormalization <epsilon = 1e-5> (groups, ones, zeros)
    back = Reshape (even, whole)
    scaled = Mul (back, scale)
    normed = Add (scaled, shift)
    positive = Relu (normed)
    b = Conv (positive, w)
    groups2 = Reshape (b, grouped)
    even2 = InstanceNormalization <epsilon = 1e-5> (groups2, ones, zeros)
    back2 = Reshape (even2, whole)
    sum = Add (back2, positive)
    after = Relu (sum)
    out = Conv (after, w)
}
"""


def test_group_norms_are_fp32_with_their_relu_and_no_further() -> None:
    types = node_types(parsed(GROUP_NORMS))
    norms = {"groups", "even", "back", "scaled", "normed", "positive", "groups2", "even2", "back2"}
    assert {name for name, kind in types.items() if kind == "float32"} == norms
    half = to_half(parsed(GROUP_NORMS)).model
    check_islands(half)
    insert(half, "groups", ("Cast", TensorProto.FLOAT16, {"to": TensorProto.FLOAT16}))
    with pytest.raises(DeployError, match=r"even \(a group norm\) must compute in FP32"):
        check_islands(half)


def test_a_group_norm_of_large_values_is_finite_in_fp16() -> None:
    """Values of a thousand, whose squares are beyond FP16."""
    model = parsed(GROUP_NORMS)
    half = to_half(model).model
    image = np.random.default_rng(0).normal(1000.0, 300.0, (1, 4, 4, 4)).astype(np.float32)
    found, wanted = (
        onnx.reference.ReferenceEvaluator(graph).run(None, {"image": image})[0]
        for graph in (half, model)
    )
    assert np.abs(found - wanted).max() < 0.05


def test_pixels_are_normalised_in_fp32() -> None:
    text = """
    g (uint8[1,2,4,4] image) => (float[1,2,4,4] out)
    <float[2,2,1,1] w = {1.0, 2.0, 3.0, 4.0}, float[2,1,1] mean = {120.0, 110.0}> {
        pixels = Cast <to = 1> (image)
        normal = Sub (pixels, mean)
        a = Conv (normal, w)
        out = Conv (a, w)
    }
    """
    types = node_types(parsed(text))
    assert types == {"pixels": "float32", "normal": "float32", "a": "float16", "out": "float16"}


def test_a_sound_graph_passes() -> None:
    check_islands(to_half(step()).model)
    check_islands(to_half(inline_bodies(step())).model)


def insert(model: ModelProto, value: str, *steps: tuple[str, int, dict[str, object]]) -> None:
    """Put one-input nodes between a value and its readers, each with the type it gives."""
    readers = [node for node in model.graph.node if value in node.input]
    at = 1 + max(i for i, node in enumerate(model.graph.node) if value in node.output)
    name = value
    for number, (op, kind, attributes) in enumerate(steps):
        made = f"{value}.planted{number}"
        inputs = [name]
        if op.endswith("QuantizeLinear") or op.endswith("quantizeLinear"):
            model.graph.initializer.append(
                numpy_helper.from_array(np.array(0.1, np.float32), f"{made}.scale")
            )
            model.graph.initializer.append(
                numpy_helper.from_array(np.array(0, np.int8), f"{made}.zero")
            )
            inputs += [f"{made}.scale", f"{made}.zero"]
        model.graph.node.insert(
            at + number, helper.make_node(op, inputs, [made], made, **attributes)
        )
        model.graph.value_info.append(helper.make_tensor_value_info(made, kind, None))
        name = made
    for node in readers:
        node.input[:] = [name if each == value else each for each in node.input]


def half_and_back(model: ModelProto, value: str) -> None:
    to_half_, back = {"to": TensorProto.FLOAT16}, {"to": TensorProto.FLOAT}
    insert(model, value, ("Cast", TensorProto.FLOAT16, to_half_), ("Cast", TensorProto.FLOAT, back))


def int8_and_back(model: ModelProto, value: str) -> None:
    q, dq = ("QuantizeLinear", TensorProto.INT8, {}), ("DequantizeLinear", TensorProto.FLOAT, {})
    insert(model, value, q, dq)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("plant", "value", "decider"),
    [
        (half_and_back, POINTS, "point_head.sample"),
        (half_and_back, "step0.scaled_x.out", "point_head.sample"),
        (half_and_back, "step0.neg.out", "step0.uncertain"),
        (half_and_back, "step0.resize.out", "step0.uncertain"),
        (int8_and_back, "head.predictor.to_fp32.out", "step0.uncertain"),
        (int8_and_back, "step0.abs.out", "step0.uncertain"),
        (int8_and_back, "point_head.predictor.to_fp32.out", "labels"),
        (int8_and_back, "step0.centre_y.out", "point_head.sample"),
    ],
)
def test_rounding_on_the_way_to_a_decision_is_found(
    plant: Callable[[ModelProto, str], None], value: str, decider: str
) -> None:
    model = to_half(step()).model
    plant(model, value)
    with pytest.raises(DeployError) as error:
        check_islands(model)
    assert decider in error.value.message


def test_int8_features_are_not_sampled() -> None:
    model = to_half(step()).model
    (sampler,) = (node for node in model.graph.node if node.name == "point_head.sample")
    int8_and_back(model, sampler.input[0])
    with pytest.raises(DeployError, match=r"point_head\.sample.*INT8"):
        check_islands(model)


def test_int8_before_a_layer_is_as_it_should_be() -> None:
    model = to_half(step()).model
    int8_and_back(model, "backbone.stem.relu.out")
    check_islands(model)


def test_a_decision_in_fp16_is_found() -> None:
    model = to_half(step()).model
    (chosen,) = (node for node in model.graph.node if node.name == "labels")
    chosen.input[0] = "point_head.predictor.out"  # not through the Cast
    with pytest.raises(DeployError, match=r"labels \(ArgMax\).*not float32"):
        check_islands(model)


def test_offsets_computed_in_fp16_are_found() -> None:
    model = to_half(parsed(OFFSETS)).model
    nodes: dict[str, NodeProto] = {node.name: node for node in model.graph.node}
    for index, name in enumerate(("boxes", "left")):
        half = helper.make_node("Cast", [name], [f"{name}.half"], f"{name}.half", to=10)
        model.graph.node.insert([n.name for n in model.graph.node].index("offset"), half)
        model.graph.value_info.append(
            helper.make_tensor_value_info(f"{name}.half", TensorProto.FLOAT16, None)
        )
        nodes["offset"].input[index] = f"{name}.half"
    for value in model.graph.value_info:
        if value.name in ("offset", "weight"):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(DeployError, match=r"offset"):
        check_islands(model)
