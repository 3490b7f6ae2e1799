"""The mask part with all RoIs at once in FP16: what is half and what is not, and its masks."""

from __future__ import annotations

import onnx
import pytest
import torch

from pointrend_deploy.engine.graphs import in_form, weighted_nodes
from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.passes.names import name_by_module
from pointrend_deploy.graph.passes.tidy import tidy
from pointrend_deploy.quantize.check import check_islands
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.islands import node_types
from pointrend_deploy.quantize.values import Values
from tests.fixtures.instance_mask_parts import Problem
from tests.graph.instance.test_masks import exported, onnx_run
from tests.quantize.test_islands import half_and_back

ROIS = 6


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(ROIS, dtype=torch.float32)


@pytest.fixture(scope="module")
def graph(problem: Problem) -> onnx.ModelProto:
    proto, _ = exported(problem, problem.masks(rows=True))
    return tidy(name_by_module(proto, {}), "0")


def of_kind(model: onnx.ModelProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == op]


def test_layers_are_half_up_to_the_predictor_s_row(graph: onnx.ModelProto) -> None:
    """The row is multiplied in FP16, as a product would be; the sum, and all after it, is FP32."""
    half = to_half(graph).model
    check_islands(half)
    types, values = node_types(graph), Values(graph)
    for op in ("Gemm", "Conv", "PointRendSampleRoIs"):
        found = [node.name for node in of_kind(graph, op)]
        assert found and {types[name] for name in found} == {"float16"}
    summed = of_kind(graph, "ReduceSum")
    rows = [node for node in summed if values.makers[node.input[0]].op_type == "Mul"]
    assert len(rows) >= 4
    assert {types[node.name] for node in summed} == {"float32"}
    halves = [node for node in rows if types[values.makers[node.input[0]].name] == "float16"]
    assert len(halves) == 4  # one of each pass
    for node in of_kind(half, "PointRendSampleRoIs"):
        assert [Values(half).types[name] for name in node.input] == [10, 10, 10, 1, 1]


def test_points_and_boxes_in_fp16_are_found(graph: onnx.ModelProto) -> None:
    for index in (3, 4):
        half = to_half(graph).model
        half_and_back(half, of_kind(half, "PointRendSampleRoIs")[1].input[index])
        with pytest.raises(DeployError, match="PointRendSampleRoIs"):
            check_islands(half)


def test_masks_in_fp16_are_those_in_fp32(problem: Problem, graph: onnx.ModelProto) -> None:
    names = [value.name for value in graph.graph.output]
    found = [onnx_run(model, problem, names) for model in (graph, to_half(graph).model)]
    masks, halves = (each["mask_logits"] > 0 for each in found)
    assert 0.1 < float(masks.double().mean()) < 0.9
    # Measured: 0.9998. Random heads decide on random logits, so more cells lie near 0 than in use.
    assert float((masks & halves).sum()) / float((masks | halves).sum()) > 0.999


def test_the_native_form_tells_the_types_of_its_products(graph: onnx.ModelProto) -> None:
    """The sampler's body multiplies too, in float32 whatever the features are."""
    for model, layers in ((graph, "float32"), (to_half(graph).model, "float16")):
        before, after = weighted_nodes(model), weighted_nodes(in_form(model, "native"))
        assert set(before.values()) == {layers}
        assert set(before) < set(after)
        assert {kind for name, kind in after.items() if name not in before} == {"float32"}
