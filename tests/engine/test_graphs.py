"""Forms of a graph, and what is refused before a builder sees it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from pointrend_deploy.engine import graphs as graph_facts
from pointrend_deploy.engine import graphs as graph_forms
from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.fp16 import to_half
from tests.conftest import Exporter
from tests.engine.graphs import conv_graph, half, quantized, topk_graph

SEMANTIC_OPS = {
    *("PointRendSampleCells", "PointRendUncertain", "PointRendUpsampleUncertainty"),
    *("PointRendUpsampleLabels", "PointRendRefineLogits", "PointRendRefineLabels"),
}


@pytest.fixture(scope="module")
def model(exported: Exporter) -> onnx.ModelProto:
    return graph_forms.read_graph(exported() / "model.onnx")


def test_the_plugin_form_has_no_bodies(model: onnx.ModelProto) -> None:
    form = graph_forms.in_form(model, "plugin")
    assert model.functions and not form.functions
    custom = graph_forms.custom_nodes(form)
    assert [n.name for n in custom] == [n.name for n in model.graph.node if n.domain]
    names = {creator.name for creator in graph_forms.creators_of(form)}
    assert names == SEMANTIC_OPS


def test_the_native_form_has_no_custom_node(model: onnx.ModelProto) -> None:
    form = graph_forms.in_form(model, "native")
    assert not graph_forms.custom_nodes(form) and not form.functions
    assert any(node.op_type == "GridSample" for node in graph_forms.nodes_of(form))
    assert max(graph_facts.topk_sizes(form).values()) == 200
    assert graph_facts.weighted_nodes(form) == graph_facts.weighted_nodes(model)


def test_names_are_those_of_the_graph_stage() -> None:
    from pointrend_deploy.graph import bodies, ops

    assert graph_forms.DOMAIN == ops.DOMAIN
    assert graph_facts.TOPK_LIMIT == bodies.TOPK_LIMIT


def test_a_native_bundle_has_no_plugin_form(exported: Exporter) -> None:
    native = graph_forms.read_graph(exported(ops="native") / "model.onnx")
    with pytest.raises(DeployError, match="exported with --ops native"):
        graph_forms.in_form(native, "plugin")
    assert graph_forms.in_form(native, "native") == native


def test_a_node_without_a_body_has_no_native_form(model: onnx.ModelProto) -> None:
    bare = graph_forms.in_form(model, "plugin")
    with pytest.raises(DeployError, match="has no function body"):
        graph_forms.in_form(bare, "native")


def test_a_node_that_names_no_plugin(model: onnx.ModelProto) -> None:
    form = graph_forms.in_form(model, "plugin")
    node = graph_forms.custom_nodes(form)[0]
    kept = [a for a in node.attribute if a.name != "plugin_version"]
    del node.attribute[:]
    node.attribute.extend(kept)
    with pytest.raises(DeployError, match=f"{node.name} .* lacks plugin_version"):
        graph_forms.creators_of(form)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file(exported: Exporter, tmp_path: Path, share: float) -> None:
    raw = (exported() / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(DeployError, match=r"cut.onnx is not a whole ONNX file"):
        graph_forms.read_graph(tmp_path / "cut.onnx")


@pytest.mark.parametrize("opset", [17, 20])
def test_an_opset_that_builders_read_wrongly(tmp_path: Path, opset: int) -> None:
    onnx.save(conv_graph(opset), tmp_path / "model.onnx")
    with pytest.raises(DeployError, match=f"of opset {opset}, not 18 or 19"):
        graph_forms.read_graph(tmp_path / "model.onnx")


@pytest.mark.parametrize("constant", [False, True])
def test_k_of_topk(constant: bool) -> None:
    assert graph_facts.topk_sizes(topk_graph(3840, constant)) == {"top": 3840}
    with pytest.raises(DeployError, match="node top: TopK with k = 3841"):
        graph_facts.topk_sizes(topk_graph(3841, constant))


def test_an_op_the_builder_lacks() -> None:
    model = conv_graph()
    model.graph.node.append(helper.make_node("RoiAlign", ["x", "r", "b"], ["z"], name="align"))
    graph_facts.refuse_ops(model, (), "TensorRT")
    with pytest.raises(DeployError, match=r"TensorRT-RTX has no RoiAlign \(node align\)"):
        graph_facts.refuse_ops(model, ("NonMaxSuppression", "RoiAlign"), "TensorRT-RTX")


def test_what_nodes_with_weights_compute_in() -> None:
    assert graph_facts.weighted_nodes(conv_graph()) == {"conv": "float32"}
    assert graph_facts.weighted_nodes(half(conv_graph())) == {"conv": "float16"}
    assert graph_facts.weighted_nodes(quantized(conv_graph())) == {"conv": "int8"}


def test_operands_that_do_not_belong_together() -> None:
    model = quantized(conv_graph())
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    for index, which in ((1, "activation"), (0, "weight")):
        one = onnx.ModelProto.FromString(model.SerializeToString())
        node = next(node for node in one.graph.node if node.op_type == "Conv")
        node.input[index] = f"float{index}"
        with pytest.raises(DeployError, match=f"node conv: its {which} alone is dequantised"):
            graph_facts.weighted_nodes(one)
    conv.input[0], conv.input[1] = "float", "half"
    for name, kind in (("float", TensorProto.FLOAT), ("half", TensorProto.FLOAT16)):
        model.graph.value_info.append(helper.make_tensor_value_info(name, kind, None))
    with pytest.raises(DeployError, match="operands are float16 and float32"):
        graph_facts.weighted_nodes(model)
    del model.graph.value_info[:]
    with pytest.raises(DeployError, match="types of its values are not in the file"):
        graph_facts.weighted_nodes(model)


def test_weights_may_be_moved_after_they_were_int8() -> None:
    model = quantized(conv_graph())
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    moved = helper.make_node("Transpose", [conv.input[1]], ["moved"], perm=[0, 1, 3, 2])
    conv.input[1] = "moved"
    model.graph.node.append(moved)
    assert graph_facts.weighted_nodes(model) == {"conv": "int8"}
    model.graph.node[-1].op_type = "Cast"
    with pytest.raises(DeployError, match="its activation alone is dequantised"):
        graph_facts.weighted_nodes(model)


def test_nodes_inside_an_if_count() -> None:
    inner = topk_graph(4000).graph
    model = conv_graph()
    branch = helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    model.graph.node.append(branch)
    assert {n.op_type for n in graph_forms.nodes_of(model)} >= {"TopK", "If", "Conv"}


def test_dynamic_dimensions_keep_their_names() -> None:
    model = conv_graph()
    value = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ("R", 4))
    model.graph.input.append(value)
    assert graph_facts.input_shapes(model) == {"x": (1, 3, 8, 8), "boxes": ("R", 4)}


def test_what_a_plugin_does_not_take(model: onnx.ModelProto) -> None:
    form = graph_forms.in_form(model, "plugin")
    graph_facts.check_plugin_inputs(form)
    node = next(n for n in form.graph.node if n.op_type == "PointRendUncertain")
    value = next(v for v in form.graph.value_info if v.name == node.input[0])
    value.type.tensor_type.elem_type = TensorProto.FLOAT16
    words = f"node {node.name}: PointRendUncertain takes float32, and {node.input[0]} is float16"
    with pytest.raises(DeployError, match=words):
        graph_facts.check_plugin_inputs(form)
    form.graph.value_info.remove(value)
    with pytest.raises(DeployError, match=f"{node.input[0]} is of a type that the file does not"):
        graph_facts.check_plugin_inputs(form)


def test_the_sampler_takes_half_maps_and_indices(model: onnx.ModelProto) -> None:
    form = to_half(model).model
    graph_facts.check_plugin_inputs(form)
    values = {value.name: value.type.tensor_type for value in form.graph.value_info}
    for node in form.graph.node:
        if node.op_type == "PointRendSampleCells":
            assert values[node.input[0]].elem_type == TensorProto.FLOAT16
            assert values[node.input[1]].elem_type == TensorProto.FLOAT16
    node = next(
        n for n in form.graph.node if n.op_type == "PointRendSampleCells" and n.input[2] in values
    )
    values[node.input[2]].elem_type = TensorProto.INT32
    with pytest.raises(DeployError, match=f"takes int64, and {node.input[2]} is int32"):
        graph_facts.check_plugin_inputs(form)


def test_every_plugin_says_what_it_takes(model: onnx.ModelProto) -> None:
    for node in graph_forms.custom_nodes(model):
        assert len(graph_facts._TAKES[node.op_type]) == len(node.input)
