"""The table of layers from both sources, and the precision that is read off it."""

from __future__ import annotations

import json

import pytest

from pointrend_deploy.engine.layers import Layer, check_precision, read_layers, table_of
from pointrend_deploy.errors import DeployError


def tensor(kind: str) -> str:
    return (
        "{ Name: x_myl0, Dimensions: [1,4,256,512], Strides: [524288,1,2048,4], StrideOrder: "
        f"[3,0,2,1], Datatype: {kind}, Format: (NHWC) Channel major format }}"
    )


LOG = f"""Layers:
Name: __myl_Move_myl0_0, LayerType: kgen, Inputs: [ {tensor("Float")}], Constants: [], Outputs: [ \
{tensor("Int8")}], TacticName: __myl_Move_0xfc, StreamId: 0, Metadata: [ONNX Layer: conv1.q]\
[ONNX Layer: conv1]
Name: conv1_myl0_1, LayerType: correlation, Inputs: [ {tensor("Int8")}], Constants: [ \
{tensor("Int8")}, {tensor("Float")}], Outputs: [ {tensor("Half")}], TacticName: \
__myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv1][ONNX Layer: conv1.dq]
Name: __myl_Fuse_2, LayerType: runtime_fusion, Inputs: [ {tensor("Half")}, {tensor("Half")}], \
Constants: [], Outputs: [ {tensor("Float")}], TacticName: , StreamId: 0, Metadata: \
[ONNX Layer: conv2][ONNX Layer: relu]

I/O Tensors:
 Name: image, IOMode: Input, DataType: Float, Dimensions: [1,3,256,512]
"""
WEIGHTED = {"conv1": "int8", "conv2": "float16"}


def test_the_message_of_the_log() -> None:
    first, second, third = read_layers(LOG)
    assert first == Layer(
        "__myl_Move_myl0_0", "kgen", ("float32",), ("int8",), ("conv1.q", "conv1")
    )
    assert (second.inputs, second.outputs) == (("int8",), ("float16",))
    assert third == Layer(
        "__myl_Fuse_2", "runtime_fusion", ("float16", "float16"), ("float32",), ("conv2", "relu")
    )


@pytest.mark.parametrize(
    ("key", "word", "found"),
    [
        ("Format/Datatype", "Row major linear FP16 format", "float16"),
        ("Format/Datatype", "Channel major INT8 format where channel % 32 == 0", "int8"),
        ("Format/Datatype", "Row major linear FP32", "float32"),
        ("Datatype", "Half", "float16"),
        ("Datatype", "BFloat16", "bfloat16"),
        ("Datatype", "Int64", "int64"),
        ("Datatype", "E8M0", "E8M0"),
    ],
)
def test_the_engine_inspector(key: str, word: str, found: str) -> None:
    text = json.dumps(
        {
            "Layers": [
                {
                    "Name": "conv1",
                    "LayerType": "CaskConvolution",
                    "Inputs": [{"Name": "x", "Dimensions": [1], key: word}],
                    "Outputs": [{"Name": "y", "Dimensions": [1], key: word}],
                    "Metadata": "[ONNX Layer: conv1]",
                }
            ]
        }
    )
    assert read_layers(text) == (Layer("conv1", "CaskConvolution", (found,), (found,), ("conv1",)),)


@pytest.mark.parametrize(
    "text", ["Layers:\n", "Layers:\nName: odd", "{}", "not JSON", '{"Layers": []}', "[1]"]
)
def test_a_table_that_cannot_be_read(text: str) -> None:
    with pytest.raises(DeployError):
        read_layers(text)


def test_precision_as_asked() -> None:
    table = table_of(read_layers(LOG), WEIGHTED)
    assert table.weighted == WEIGHTED
    assert table.kinds == {"kgen": 1, "correlation": 1, "runtime_fusion": 1}
    check_precision(table, WEIGHTED, "int8")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (f"correlation, Inputs: [ {tensor('Int8')}", f"correlation, Inputs: [ {tensor('Float')}",
         "1 of 2 nodes .* conv1 in float32, not int8"),
        (tensor("Half"), tensor("Float"), "conv2 in float32, not float16"),
        ("ONNX Layer: conv", "ONNX Layer: other", "name none"),
    ],
)  # fmt: skip
def test_a_fallback_is_found(before: str, after: str, words: str) -> None:
    assert before in LOG
    table = table_of(read_layers(LOG.replace(before, after)), WEIGHTED)
    with pytest.raises(DeployError, match=words):
        check_precision(table, WEIGHTED, "int8")


def test_a_graph_that_is_not_of_its_precision() -> None:
    weighted = {"conv1": "float32"}
    with pytest.raises(DeployError, match="no node of the fp16 graph computes in float16"):
        check_precision(table_of(read_layers(LOG), weighted), weighted, "fp16")


def test_a_node_that_no_layer_names_is_told_apart() -> None:
    table = table_of(read_layers(LOG), {**WEIGHTED, "folded": "int8"})
    assert table.weighted["folded"] == "?"
