"""What TensorRT-RTX makes of a placement: the evidence behind the rule."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from pointrend_deploy.engine.build import Engine, Request, build_engine
from pointrend_deploy.engine.targets import parse_targets
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Silent
from pointrend_deploy.quantize import placement
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.layers import weighted_layers
from pointrend_deploy.quantize.placement import place
from pointrend_deploy.quantize.qdq import insert
from tests.engine.rtx import rtx_needed
from tests.fixtures.small_graphs import Graph, residual_pyramid, standard_mask_head


def built(model: onnx.ModelProto, folder: Path) -> Engine:
    rtx_needed()
    chosen = place(model)
    products = {
        layer.name
        for layer in weighted_layers(model)
        if layer.name in chosen.int8 and layer.op in ("Gemm", "MatMul")
    }
    amax = {value: 3.0 for _, _, value in chosen.edges}
    graph = insert(to_half(model, products).model, chosen, amax, weights_from=model)
    onnx.save(graph, folder / "small.onnx")
    request = Request(
        graph=folder / "small.onnx",
        stem="small",
        target=parse_targets("rtx:86")[0],
        precision="int8",
        ops="native",
        workspace_mib=1024,
        sizes={},
        library=None,
    )
    return build_engine(request, folder, Silent())


def every_kind() -> onnx.ModelProto:
    """Each op of the rule that the pyramid has not: Gemm, MatMul, 1-D, grouped, stride 2."""
    g = Graph(flat=(8, 64), line=(1, 32, 64), map=(1, 32, 16, 16))
    fc = "roi_heads.box_head.fc1"
    flat = g.node("Relu", "flat.relu", "flat")
    product = g.node("MatMul", "roi_heads.box_head.fc2", flat, g.weight("fc2.weight", 64, 32))
    gemm = g.node(
        "Gemm", fc, flat, g.weight(f"{fc}.weight", 32, 64), g.bias(fc, 32), transB=1
    )  # as torch writes a linear layer
    line = g.conv("backbone.fpn_line", "line", 32, 32, 1, pads=[0, 0])
    x = g.conv("backbone.fpn_grouped", "map", 32, 8, 3, 3, group=4)
    x = g.conv("backbone.fpn_strided", g.relu(x), 32, 32, 2, 2, strides=[2, 2], pads=[0] * 4)
    return g.model(product, gemm, line, x)


@pytest.mark.parametrize("graph", [residual_pyramid, every_kind])
def test_every_placed_layer_becomes_an_int8_kernel(graph: object, tmp_path: Path) -> None:
    model = graph()  # type: ignore[operator]
    table = built(model, tmp_path).table
    chosen = place(model).int8
    assert {name: table.weighted[name] for name in chosen} == dict.fromkeys(chosen, "int8")


def test_a_deconvolution_would_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the rule leaves it out; should a later version compute it, this says so."""
    monkeypatch.setattr(placement, "_cannot", lambda layer: None)
    model = standard_mask_head()
    del model.graph.output[0]
    kept = [n for n in model.graph.node if n.name.split(".")[-1] in ("mask_fcn1", "relu", "deconv")]
    last = kept[-1].output[0]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.output.extend(v for v in model.graph.value_info if v.name == last)
    for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 2
    assert any("deconv" in name for name in place(model).int8)
    with pytest.raises(DeployError, match="deconv"):
        built(model, tmp_path)
