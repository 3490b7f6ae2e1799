"""Each promise of the contract, broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import onnx
import pytest
from onnx import TensorProto, helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import Expected, check_contract
from pointrend_deploy.graph.options import GraphOptions
from pointrend_deploy.graph.semantic.export import expected, export_graph
from tests.fixtures.semantic_models import point_head, small_model

Fault = Callable[[onnx.ModelProto], None]
Case = tuple[str, Fault, str]


def by_ops(**faults: list[tuple[Fault, str]]) -> list[Case]:
    """Cases of a test: (ops, what breaks the graph, what the error must say)."""
    return [(ops, plant, word) for ops, planted in faults.items() for plant, word in planted]


def refused(proto: onnx.ModelProto, promised: Expected, plant: Fault, word: str) -> None:
    """The graph passes as it is and not with the fault; the error has the word in it."""
    check_contract(proto, promised)
    plant(proto)
    with pytest.raises(DeployError, match=word):
        check_contract(proto, promised)


@cache
def exported(ops: str) -> tuple[bytes, Expected]:
    model = small_model(point_head())
    options = GraphOptions(padded_hw=(64, 64), ops=ops)  # type: ignore[arg-type]
    proto = export_graph(model, options)
    return proto.SerializeToString(), expected(model, options)


def fresh(ops: str = "native") -> tuple[onnx.ModelProto, Expected]:
    data, promised = exported(ops)
    return onnx.ModelProto.FromString(data), promised


def first(proto: onnx.ModelProto, op: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.op_type == op)


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def drop_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def opset(version: int) -> Fault:
    def plant(proto: onnx.ModelProto) -> None:
        next(e for e in proto.opset_import if not e.domain).version = version

    return plant


def foreign_domain(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.example", 1))


def rename_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].name = "picture"


def extra_output(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(proto.graph.value_info[0])


def input_shape(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 65


def output_type(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


def dynamic_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def dynamic_value(proto: onnx.ModelProto) -> None:
    proto.graph.value_info[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def unknown_shape(proto: onnx.ModelProto) -> None:
    del proto.graph.value_info[0]


def int8_value(proto: onnx.ModelProto) -> None:
    proto.graph.value_info[0].type.tensor_type.elem_type = TensorProto.INT8


def half_constant(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(helper.make_tensor("extra", TensorProto.FLOAT16, [1], [1.0]))


def written_twice(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(proto.graph.node[-1])


def grid_sample(name: str, value: object) -> Fault:
    return lambda proto: set_attribute(first(proto, "GridSample"), name, value)


def nearest_by_default_name(proto: onnx.ModelProto) -> None:
    set_attribute(first(proto, "GridSample"), "mode", "linear")


def scatter_add(proto: onnx.ModelProto) -> None:
    set_attribute(first(proto, "ScatterElements"), "reduction", "add")


def cubic_resize(proto: onnx.ModelProto) -> None:
    set_attribute(first(proto, "Resize"), "mode", "cubic")


def antialias(proto: onnx.ModelProto) -> None:
    set_attribute(first(proto, "Resize"), "antialias", 1)


def forbidden_op(proto: onnx.ModelProto) -> None:
    first(proto, "Relu").op_type = "NonZero"


def smallest_first(proto: onnx.ModelProto) -> None:
    set_attribute(first(proto, "TopK"), "largest", 0)


def large_topk(proto: onnx.ModelProto) -> None:
    name = first(proto, "TopK").input[1]
    for node in proto.graph.node:
        if name in node.output:
            drop_attribute(node, "value")
            set_attribute(node, "value_ints", [3841])


def unknown_topk(proto: onnx.ModelProto) -> None:
    first(proto, "TopK").input[1] = "nowhere"


NATIVE = [
    (opset(20), "opset 20"),
    (opset(17), "opset 17"),
    (opset(19), "not 18 as asked"),
    (foreign_domain, "com.example"),
    (rename_input, "picture"),
    (extra_output, "outputs are"),
    (input_shape, "65"),
    (output_type, "int64"),
    (dynamic_input, "batch"),
    (dynamic_value, "fixed and positive"),
    (unknown_shape, "no known shape"),
    (int8_value, "int8"),
    (half_constant, "float16"),
    (written_twice, "same value"),
    (grid_sample("mode", "nearest"), "mode=nearest"),
    (nearest_by_default_name, "mode=linear"),
    (grid_sample("padding_mode", "border"), "padding_mode=border"),
    (grid_sample("align_corners", 1), "align_corners=1"),
    (scatter_add, "reduction=add"),
    (cubic_resize, "mode=cubic"),
    (antialias, "antialias=1"),
    (forbidden_op, "NonZero"),
    (smallest_first, "largest=0"),
    (large_topk, "3841"),
    (unknown_topk, "not a constant"),
]


def no_functions(proto: onnx.ModelProto) -> None:
    del proto.functions[:]


def no_namespace(proto: onnx.ModelProto) -> None:
    drop_attribute(first(proto, "PointRendSampleCells"), "plugin_namespace")


def no_k(proto: onnx.ModelProto) -> None:
    drop_attribute(first(proto, "PointRendUncertain"), "k")


def unknown_custom(proto: onnx.ModelProto) -> None:
    first(proto, "PointRendSampleCells").op_type = "PointRendOther"


def optional_input(proto: onnx.ModelProto) -> None:
    node = first(proto, "PointRendSampleCells")
    node.input.append(node.input[0])


def no_grid(proto: onnx.ModelProto) -> None:
    set_attribute(first(proto, "PointRendSampleCells"), "grid_width", 0)


def scale_of_three(proto: onnx.ModelProto) -> None:
    set_attribute(first(proto, "PointRendUpsampleLabels"), "scale", 3)


def one_output(proto: onnx.ModelProto) -> None:
    del first(proto, "PointRendUpsampleLabels").output[1]


def large_topk_in_a_body(proto: onnx.ModelProto) -> None:
    body = next(f for f in proto.functions if f.name == "PointRendUncertain")
    for node in body.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            drop_attribute(node, "value")
            set_attribute(node, "value_ints", [8192])


def forbidden_op_in_a_body(proto: onnx.ModelProto) -> None:
    proto.functions[0].node[0].op_type = "Unique"


PLUGIN = [
    (no_functions, "no function body"),
    (no_namespace, "plugin_namespace"),
    (no_k, "'k'"),
    (unknown_custom, "PointRendOther"),
    (optional_input, "fixed number"),
    (no_grid, "grid_width = 0"),
    (scale_of_three, "scale = 3"),
    (one_output, "fixed number"),
    (large_topk_in_a_body, "8192"),
    (forbidden_op_in_a_body, "Unique"),
]


@pytest.mark.parametrize(("ops", "plant", "word"), by_ops(native=NATIVE, plugin=PLUGIN))
def test_a_fault_is_refused(ops: str, plant: Fault, word: str) -> None:
    refused(*fresh(ops), plant, word)


def test_custom_nodes_in_a_native_graph() -> None:
    proto, _ = fresh("plugin")
    _, promised = fresh("native")
    with pytest.raises(DeployError, match="native"):
        check_contract(proto, promised)


@pytest.mark.parametrize("ops", ["plugin", "native"])
def test_a_sound_graph_passes(ops: str) -> None:
    check_contract(*fresh(ops))
