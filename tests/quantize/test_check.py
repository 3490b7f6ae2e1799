"""What an FP16 or INT8 graph may hold beside what an FP32 one may."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import FP32_TYPES, check_contract
from pointrend_deploy.quantize.check import FP16_TYPES, INT8_TYPES, expected_like
from pointrend_deploy.quantize.fp16 import to_half
from tests.fixtures.deciding_graphs import step


def quantised(opset: int = 18) -> ModelProto:
    """The step with a Q/DQ pair before its first layer."""
    model = step()
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", opset), helper.make_opsetid("pointrend", 1)])
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    graph.node[0].input[0] = "d"
    graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"))
    graph.node.insert(0, helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"], "q"))
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def test_it_is_from_outside_the_graph_it_was_made_from() -> None:
    expected = expected_like(step(), FP16_TYPES)
    assert expected.inputs == {"image": ("float32", (1, 2, 6, 10))}
    assert expected.outputs["labels"] == ("int64", (1, 50))
    assert (expected.ops, expected.opset) == ("plugin", 18)
    check_contract(to_half(step()).model, expected)
    other = to_half(step(k=40)).model
    with pytest.raises(DeployError, match=r"output labels is int64 \[1, 40\]"):
        check_contract(other, expected)


def test_only_an_int8_graph_may_quantise() -> None:
    check_contract(quantised(), expected_like(step(), INT8_TYPES))
    check_contract(quantised(19), expected_like(step(), INT8_TYPES, opset=19))
    for types in (FP32_TYPES, FP16_TYPES, FP16_TYPES - {"float32"}):
        with pytest.raises(DeployError):
            check_contract(quantised(), expected_like(step(), types))
    without_values = quantised()
    for value in without_values.graph.value_info:
        if value.name == "q":
            value.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    zero = next(t for t in without_values.graph.initializer if t.name == "zero")
    zero.CopyFrom(numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    with pytest.raises(DeployError, match="QuantizeLinear is not allowed"):
        check_contract(without_values, expected_like(step(), FP16_TYPES))


def test_no_body_may_quantise() -> None:
    model = step()
    body = model.functions[0]
    body.node.add().CopyFrom(
        helper.make_node("DequantizeLinear", [body.input[0]], ["planted"], "planted")
    )
    with pytest.raises(DeployError, match="DequantizeLinear is not allowed"):
        check_contract(model, expected_like(model, INT8_TYPES))
