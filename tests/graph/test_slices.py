"""Marking inner values as outputs and cutting parts out of a small graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pointrend_deploy.graph.slices import cut, with_outputs

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def model() -> onnx.ModelProto:
    """``sum`` = x + 1 is read by ``twice`` = 2 sum, an output, and ``index``, an output of ints."""

    def info(name: str, kind: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, [2, 3])

    nodes = [
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Mul", ["sum", "two"], ["twice"]),
        helper.make_node("Cast", ["sum"], ["index"], to=TensorProto.INT64),
    ]
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [value])
        for name, value in (("one", 1.0), ("two", 2.0), ("unread", 9.0))
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [info("x", TensorProto.FLOAT), info("other", TensorProto.FLOAT)],
        [info("twice", TensorProto.FLOAT), info("index", TensorProto.INT64)],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def run(raw: bytes, **inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_inner_values_are_outputs_besides_and_the_model_stays() -> None:
    made = model()
    before = made.SerializeToString()
    raw, names = with_outputs(made, ["sum", "twice", "absent", "sum"])
    assert names == ["twice", "index", "sum"]
    assert made.SerializeToString() == before
    found = run(raw, x=X, other=X)
    assert list(found) == names
    np.testing.assert_array_equal(found["sum"], X + 1)


def test_a_part_reads_only_what_it_needs() -> None:
    part = cut(model(), ["sum", "twice"])
    assert [value.name for value in part.graph.input] == ["x"]
    assert [node.op_type for node in part.graph.node] == ["Add", "Mul"]
    assert [weight.name for weight in part.graph.initializer] == ["one", "two"]
    found = run(part.SerializeToString(), x=X)
    np.testing.assert_array_equal(found["twice"], 2 * found["sum"])


def test_a_part_takes_inner_values_as_inputs() -> None:
    part = cut(model(), ["twice"], {"sum": X})
    assert [node.op_type for node in part.graph.node] == ["Mul"]
    assert [weight.name for weight in part.graph.initializer] == ["two"]
    np.testing.assert_array_equal(run(part.SerializeToString(), sum=X)["twice"], 2 * X)
