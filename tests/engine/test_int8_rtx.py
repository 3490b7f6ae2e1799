"""FP16 and INT8 graphs built by TensorRT-RTX: what is meant is what the engine's layers are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.engine.build import Engine, Request, build_engine
from pointrend_deploy.engine.flavour import flavour_of
from pointrend_deploy.engine.layers import Layer
from pointrend_deploy.engine.targets import Target
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Silent
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import Placement, place
from pointrend_deploy.quantize.qdq import insert
from pointrend_deploy.quantize.values import weighted_names
from tests.conftest import Exporter
from tests.engine.quantized import int8_of
from tests.engine.rtx import rtx_needed
from tests.fixtures.small_graphs import (
    Graph,
    group_normed,
    instance_heads,
    residual_pyramid,
    shared_levels,
)

GRAPHS = (residual_pyramid, shared_levels, instance_heads, group_normed)
Build = Callable[..., Engine]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a graph for a GPU that is not here, checks and all."""
    rtx_needed()

    def built(model: onnx.ModelProto, precision: Precision, capability: int = 86) -> Engine:
        path = tmp_path / f"model.{precision}.onnx"
        onnx.save(model, path)
        request = Request(
            graph=path,
            stem="model",
            target=Target(flavour_of("tensorrt_rtx"), capability),
            precision=precision,
            ops="native",
            workspace_mib=256,
            sizes={"R": (1, 4, 4)},
            library=None,
        )
        folder = tmp_path / f"{precision}-{capability}"
        folder.mkdir(exist_ok=True)
        return build_engine(request, folder, Silent())

    return built


def products(engine: Engine, kind: str) -> list[Layer]:
    """Products that read activations and weights of a type."""
    return [
        layer
        for layer in engine.table.layers
        if layer.product and layer.weights and layer.inputs[0].type == layer.weights.type == kind
    ]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("fallback", ["fp16", "fp32"])
def test_every_layer_meant_for_int8_is_and_no_other(
    build: Build, graph: Callable[[], onnx.ModelProto], fallback: str
) -> None:
    model = graph()
    meant = place(model).int8
    engine = build(int8_of(model, fallback), "int8")
    found = {node for node, kind in engine.table.weighted.items() if kind == "int8"}
    assert found == set(meant)
    rest = [engine.table.weighted[node] for node in weighted_names(model) if node not in found]
    assert set(rest) <= {"float16" if fallback == "fp16" else "float32"}
    named = {node for layer in products(engine, "int8") for node in layer.nodes}
    assert set(meant) <= named


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_product_of_an_fp16_graph_is_fp16(
    build: Build, graph: Callable[[], onnx.ModelProto]
) -> None:
    model = graph()
    engine = build(to_half(model).model, "fp16")
    kinds = engine.table.weighted
    assert {kinds[node] for node in weighted_names(model)} == {"float16"}
    named = {node for layer in products(engine, "float32") for node in layer.nodes}
    assert not named & set(weighted_names(model))
    assert not products(engine, "int8")


def test_a_group_norm_computes_in_fp32_and_moves_fp16(build: Build) -> None:
    """One kernel, with the ReLU where one follows: FP32 inside, nothing of its size outside."""
    model = group_normed()
    engine = build(to_half(model).model, "fp16")
    norms = [
        layer
        for layer in engine.table.layers
        if any(node.endswith(".norm.instancenormalization") for node in layer.nodes)
        and any(len(operand.shape) == 4 for operand in layer.outputs)
    ]
    assert len(norms) == 4
    for layer in norms:
        assert {o.type for o in layer.constants if len(o.shape) == 4} == {"float32"}
    with_relu = [n for n in norms if any(node.endswith("relu") for node in n.nodes)]
    assert len(with_relu) >= 2
    for layer in with_relu:
        moved = [o for o in (*layer.inputs, *layer.outputs) if len(o.shape) == 4]
        assert {o.type for o in moved} == {"float16"}


def test_a_real_model(build: Build, exported: Exporter) -> None:
    model = onnx.load(exported() / "model.onnx")
    half = build(to_half(model).model, "fp16")
    assert set(half.table.weighted.values()) == {"float16"}
    engine = build(int8_of(model), "int8")
    kinds = engine.table.weighted
    assert {name for name, kind in kinds.items() if kind == "int8"} == set(place(model).int8)
    assert set(kinds.values()) == {"int8", "float16"}


def test_layers_left_out_are_fp16(build: Build) -> None:
    model = residual_pyramid()
    left = "backbone.bottom_up.res2.0.conv2"
    placement = place(model, keep=[left])
    ranges = {value: 4.0 for _, _, value in placement.edges}
    engine = build(insert(to_half(model).model, placement, ranges, model), "int8")
    assert engine.table.weighted[left] == "float16"
    assert engine.table.weighted["backbone.bottom_up.res2.0.conv1"] == "int8"


def single(op: str) -> onnx.ModelProto:
    """A layer ``backbone.kept`` between two convolutions, followed by no other op."""
    g = Graph(image=(1, 8, 8, 8))
    x = g.conv("backbone.before", "image", 8, 8, 3, 3)
    if op == "Conv":
        x = g.conv("backbone.kept", x, 8, 8, 3, 3)
    elif op == "ConvTranspose":
        inputs = x, g.weight("backbone.kept.weight", 8, 8, 2, 2)
        x = g.node(op, "backbone.kept", *inputs, strides=[2, 2])
    else:
        x = g.node(op, "backbone.kept", x, g.weight("backbone.kept.weight", 8, 8))
    return g.model(g.conv("backbone.after", x, 8, 8, 3, 3))


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MatMul"])
def test_a_single_layer_kept_in_fp32(build: Build, op: str) -> None:
    """Without the Clip that saturate.py puts behind it the builder makes it FP16."""
    half = to_half(single(op), ["backbone.kept"]).model
    kinds = {"before": "float16", "kept": "float32", "after": "float16"}
    expected = {f"backbone.{name}": kind for name, kind in kinds.items()}
    assert build(half, "fp16").table.weighted == expected
    (clip,) = (node for node in half.graph.node if node.op_type == "Clip")
    cast = next(node for node in half.graph.node if clip.output[0] in node.input)
    cast.input[0] = clip.input[0]
    with pytest.raises(
        DeployError, match=r"1 meant for float32 compute in float16: backbone\.kept"
    ):
        build(half, "fp16")


def test_a_gpu_without_int8_convolutions(build: Build) -> None:
    words = r"meant for int8 compute in float16: backbone\.bottom_up\.stem\.conv1, "
    with pytest.raises(DeployError, match=words) as caught:
        build(int8_of(residual_pyramid()), "int8", 75)
    assert "from compute capability 8.0 on: build --precision fp16" in caught.value.hint


def test_an_op_without_an_int8_kernel(build: Build) -> None:
    g = Graph(image=(1, 8, 8, 8))
    x = g.relu(g.conv("backbone.conv", "image", 16, 8, 3, 3))
    inputs = x, g.weight("mask_head.deconv.weight", 16, 8, 2, 2), g.bias("mask_head.deconv", 8)
    out = g.node("ConvTranspose", "mask_head.deconv", *inputs, strides=[2, 2])
    model = g.model(out)
    forced = Placement(
        int8=("backbone.conv", "mask_head.deconv"),
        left_out={},
        edges=(("backbone.conv", 0, "image"), ("mask_head.deconv", 0, x)),
        flops_share=1.0,
        meant_flops=1,
    )
    graph = insert(to_half(model).model, forced, {"image": 4.0, x: 4.0}, model)
    with pytest.raises(
        DeployError, match=r"1 meant for int8 compute in float16: mask_head\.deconv"
    ):
        build(graph, "int8")


def test_linear_layers_with_fp16_scales(build: Build) -> None:
    with pytest.raises(DeployError, match=r"fc1 writes its sums of int8 products as float16"):
        build(int8_of(instance_heads(), linear_fp16=True), "int8")
