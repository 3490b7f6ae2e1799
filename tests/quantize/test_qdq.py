"""Q/DQ nodes in a graph: what they compute, what is stored, what is shared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.onnx_session import open_session
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import Placement, place
from pointrend_deploy.quantize.qdq import UNSEEN, insert, quantized_weight, scales_of
from tests.fixtures.small_graphs import (
    Array,
    Graph,
    instance_heads,
    residual_pyramid,
    shared_levels,
    standard_mask_head,
)

NAME = "backbone.fpn_x"


def ranges(placement: Placement, amax: float = 3.0) -> dict[str, float]:
    return {value: amax for _, _, value in placement.edges}


def made(model: onnx.ModelProto, half: bool, **more: float) -> onnx.ModelProto:
    placement = place(model)
    base = to_half(model).model if half else model
    graph = insert(base, placement, {**ranges(placement), **more}, weights_from=model)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def outputs(model: onnx.ModelProto, **inputs: Array) -> list[Array]:
    session = open_session(model.SerializeToString(), threads=1)
    answers: list[Array] = session.run(None, inputs)
    return answers


def initializers(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def rounded(values: Array, scale: npt.ArrayLike, least: int = -127) -> Array:
    """What numpy makes of quantise and dequantise; QuantizeLinear's least value is -128."""
    scale = np.asarray(scale, np.float64)
    return np.asarray(np.clip(np.rint(values / scale), least, 127) * scale)


def one_by_one(weight: Array, opset: int = 18) -> onnx.ModelProto:
    g = Graph(x=(1, weight.shape[1], 4, 5))
    w, b = g.constant(f"{NAME}.weight", weight), g.bias(NAME, weight.shape[0])
    return g.model(g.node("Conv", NAME, "x", w, b), opset=opset)


@pytest.mark.parametrize("half", [False, True])
def test_a_convolution_computes_what_numpy_does(half: bool) -> None:
    random = np.random.default_rng(3)
    weight = random.normal(size=(6, 8, 1, 1)).astype(np.float32)
    x = random.normal(size=(1, 8, 4, 5)).astype(np.float32)
    model = one_by_one(weight)
    kind = np.float16 if half else np.float32
    channel = scales_of(np.abs(weight).max(axis=(1, 2, 3)), kind)
    matrix = rounded(weight[:, :, 0, 0].astype(np.float64), channel[:, None])
    activation = rounded(x.astype(kind).astype(np.float64), scales_of(2.0, kind), -128)
    bias = initializers(model)[f"{NAME}.bias"].reshape(-1, 1, 1)
    expected = np.einsum("oc,nchw->nohw", matrix, activation) + bias
    found = outputs(made(model, half, x=2.0), x=x)[0]
    exact = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x) + bias
    tolerance = 1e-2 if half else 1e-5  # FP16 keeps eleven bits of sums of some units
    assert np.abs(found - expected).max() < tolerance
    assert np.abs(found - exact).max() > 5 * tolerance  # INT8 was not left out


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("graph", [residual_pyramid, shared_levels, instance_heads])
def test_int8_is_near_fp32_on_every_graph(graph: object, half: bool) -> None:
    model = graph()  # type: ignore[operator]
    random = np.random.default_rng(5)
    feed = {
        value.name: random.normal(
            size=[d.dim_value or 3 for d in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in model.graph.input
    }
    plain = outputs(model, **feed)
    for before, after in zip(plain, outputs(made(model, half), **feed), strict=True):
        assert after.dtype == np.float32
        size = np.sqrt(np.square(before).mean())
        assert np.sqrt(np.square(after - before).mean()) < 0.1 * size


def test_what_reads_a_value_in_floating_point_still_does() -> None:
    graph = made(residual_pyramid(), half=False)
    reads = {node.name: list(node.input) for node in graph.graph.node}
    assert reads["sem_seg_head.point_head"][0] == "backbone.fpn_output2.out"
    assert reads["sem_seg_head.coarse_sem_seg_head.p2.0"][0].endswith(".dequantize.out")
    assert reads["backbone.bottom_up.stem.maxpool"] == ["backbone.bottom_up.stem.conv1.relu.out"]
    assert reads["backbone.add"] == ["backbone.fpn_lateral2.out", "backbone.resize.out"]


def test_a_value_has_one_pair_whichever_layers_read_it() -> None:
    graph = made(residual_pyramid(), half=True)
    kinds = [node.op_type for node in graph.graph.node]
    placement = place(residual_pyramid())
    values = {value for _, _, value in placement.edges}
    assert kinds.count("QuantizeLinear") == len(values)
    assert kinds.count("DequantizeLinear") == len(values) + len(placement.int8)


def test_weights_are_stored_once_in_int8_and_floating_ones_are_gone() -> None:
    model = shared_levels()
    graph = made(model, half=False)
    head = "proposal_generator.rpn_head"
    stored = initializers(graph)
    assert f"{head}.conv.weight" not in stored
    assert stored[f"{head}.conv.weight.int8"].dtype == np.int8
    assert stored[f"{head}.conv.weight.scale"].shape == (8,)
    assert sum(name.endswith(".int8") and "weight" in name for name in stored) == 1
    assert f"{head}.anchor_deltas.weight" in stored  # a predictor's
    conv = [n for n in graph.graph.node if n.op_type == "Conv" and ".conv." in n.name]
    assert {n.input[1] for n in conv} == {f"{head}.conv.weight.dequantize.out"}


def test_a_weight_one_of_whose_layers_is_left_out_is_kept_beside() -> None:
    model = shared_levels()
    head = "proposal_generator.rpn_head.conv"
    placement = place(model, keep=[f"{head}.p3"])
    stored = initializers(insert(model, placement, ranges(placement)))
    assert {f"{head}.weight", f"{head}.weight.int8"} <= set(stored)


@pytest.mark.parametrize("half", [False, True])
def test_scales_have_the_type_of_what_they_scale_and_the_opset_follows(half: bool) -> None:
    graph = made(residual_pyramid(), half)
    kinds = {
        tensor.data_type for tensor in graph.graph.initializer if tensor.name.endswith(".scale")
    }
    assert kinds == {TensorProto.FLOAT16 if half else TensorProto.FLOAT}
    assert graph.opset_import[0].version == (19 if half else 18)
    biases = [t for t in graph.graph.initializer if t.name.endswith(".bias")]
    assert biases
    assert TensorProto.INT8 not in {tensor.data_type for tensor in biases}


def test_an_input_cast_to_fp16_is_quantised_after_the_cast() -> None:
    graph = made(residual_pyramid(), half=True, image=2.5)
    makers = {name: node for node in graph.graph.node for name in node.output}
    stem = next(n for n in graph.graph.node if n.name == "backbone.bottom_up.stem.conv1")
    quantize = makers[makers[stem.input[0]].input[0]]
    assert quantize.op_type == "QuantizeLinear"
    assert makers[quantize.input[0]].op_type == "Cast"
    scale = initializers(graph)[quantize.input[1]]
    assert scale == pytest.approx(2.5 / 127, rel=1e-3)


def test_a_layer_kept_in_fp32_in_an_fp16_graph_gets_fp32_scales() -> None:
    model = instance_heads()
    placement = place(model)
    fc = "roi_heads.box_head.fc1"
    half = to_half(model, [fc]).model
    graph = insert(half, placement, ranges(placement), weights_from=model)
    onnx.checker.check_model(graph, full_check=True)
    stored = initializers(graph)
    assert stored[f"{fc}.weight.scale"].dtype == np.float32
    assert stored["roi_heads.mask_head.coarse_head.fc1.weight.scale"].dtype == np.float16


def test_channels_count_along_the_axis_of_each_op() -> None:
    model = instance_heads()
    head = "roi_heads.mask_head.point_head"
    placement = place(model, also=[head])
    graph = insert(model, placement, ranges(placement))
    axes = {
        node.name: onnx.helper.get_node_attr_value(node, "axis")
        for node in graph.graph.node
        if node.op_type == "DequantizeLinear" and node.attribute
    }
    stored = initializers(graph)
    assert axes[f"{head}.weight.dequantize"] == 2
    assert stored[f"{head}.weight.scale"].shape == (10,)
    assert axes["roi_heads.box_head.fc1.weight.dequantize"] == 0  # transB
    assert stored["roi_heads.box_head.fc1.weight.scale"].shape == (16,)
    feed = {"rois": np.ones((2, 8, 4, 4), np.float32), "points": np.ones((2, 6, 5), np.float32)}
    assert outputs(graph, **feed)[3].shape == (2, 5, 1)


def test_a_deconvolution_stays_as_it_is() -> None:
    graph = made(standard_mask_head(), half=True)
    deconv = next(n for n in graph.graph.node if n.op_type == "ConvTranspose")
    makers = {name: node.op_type for node in graph.graph.node for name in node.output}
    assert "DequantizeLinear" not in {makers.get(name) for name in deconv.input}


def test_bytes_are_the_same_every_time() -> None:
    first, second = (made(residual_pyramid(), half=True) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_every_value_keeps_a_type_and_shape() -> None:
    graph = made(residual_pyramid(), half=True).graph
    known = {value.name for value in [*graph.value_info, *graph.output]}
    assert {name for node in graph.node for name in node.output} == known
    assert len(graph.value_info) == len({value.name for value in graph.value_info})


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_no_scale_clips_the_largest_value(dtype: type) -> None:
    amax = np.random.default_rng(1).uniform(1e-7, 100, 4000)
    scale = scales_of(amax, dtype).astype(np.float64)
    assert (127 * scale >= amax).all()
    usual = amax > 0.02  # above FP16's subnormal scales
    assert (127 * scale[usual] <= amax[usual] * (1 + 2.0**-9)).all()


def test_tiny_channels_do_not_vanish_and_dead_ones_stay_dead() -> None:
    weight = np.array([[1e-3, -5e-4], [4e-6, 1e-6], [0, 0], [1e-9, 0]], np.float32)
    values, scale = quantized_weight(weight, 0, np.float16)
    assert (scale > 0).all()
    assert values[0, 0] >= 126
    assert values[2].tolist() == [0, 0]
    assert float(scale[2]) == pytest.approx(UNSEEN / 127, rel=1e-3)
    back = values * scale.astype(np.float64)[:, None]
    assert np.abs(back - weight).max() < 5e-6
    assert np.abs(back - weight)[1:].max() <= 2.0**-24  # FP16's own spacing there


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_a_range_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(DeployError, match="the range of image is"):
        made(residual_pyramid(), half=False, image=wrong)


def test_a_value_without_a_range_is_named() -> None:
    model = residual_pyramid()
    placement = place(model)
    amax = ranges(placement)
    del amax["backbone.add.out"]
    with pytest.raises(DeployError, match=r"1 of 10 values have no range: backbone\.add\.out"):
        insert(model, placement, amax)
