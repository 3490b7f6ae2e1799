"""The table of layers from both sources."""

from __future__ import annotations

import json

import msgspec
import pytest

from pointrend_deploy.engine.layers import Layer, LayerTable, Operand, encode_tables, read_layers
from pointrend_deploy.errors import DeployError
from tests.engine.tables import LOG, line


def test_the_message_of_the_log() -> None:
    first, second, third = read_layers(LOG)
    image = Operand("int8", (1, 64, 8, 8), "x_myl0")
    weights = Operand("int8", (32, 64, 3, 3), "x_myl0")
    factors = Operand("float32", (1, 32, 1, 1), "x_myl0")
    assert first == Layer(
        "__myl_Move_myl0_0",
        "kgen",
        (Operand("float32", (1, 64, 8, 8), "x_myl0"),),
        (),
        (image,),
        ("conv1.q", "conv1"),
        "__myl_Move_0xfc",
    )
    assert (second.kind, second.inputs, second.nodes) == (
        "correlation",
        (image,),
        ("conv1", "conv1.dq"),
    )
    assert second.constants == (weights, factors, factors)
    assert (second.weights, second.product) == (weights, True)
    assert second.outputs == (Operand("float16", (1, 32, 8, 8), "x_myl0"),)
    assert (third.kind, third.product) == ("runtime_fusion", False)
    assert third.nodes == ("conv2", "relu")


def test_dynamic_dimensions_are_read() -> None:
    (first, *_) = read_layers(LOG.replace("[1,64,8,8]", "[-1,64,R,8]"))
    assert first.inputs == (Operand("float32", (-1, 64, -1, 8), "x_myl0"),)


@pytest.mark.parametrize(
    ("constants", "weights"),
    [
        ("Half[4,4]", "float16"),
        ("Half[1,1,4,1] Float[1]", "float16"),
        ("Float[1] Float[1]", "int8"),
        ("", "int8"),
    ],
)
def test_where_the_weights_are(constants: str, weights: str) -> None:
    text = line("gemm", "Float[2,4] Int8[4,4]", constants, "Half[2,4]", "product")
    (layer,) = read_layers(f"Layers:\n{text}")
    assert layer.weights is not None
    assert layer.weights.type == weights


@pytest.mark.parametrize(
    ("key", "word", "found"),
    [
        ("Format/Datatype", "Row major linear FP16 format", "float16"),
        ("Format/Datatype", "Channel major INT8 format where channel % 32 == 0", "int8"),
        ("Format/Datatype", "Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Format/Datatype", "Row major linear FP32", "float32"),
        ("Format/Datatype", "N/A due to dynamic shapes", "N/A due to dynamic shapes"),
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
                    "Inputs": [{"Name": "x", "Dimensions": [1, 64], key: word}],
                    "Outputs": [{"Name": "y", "Dimensions": [1], key: word}],
                    "ParameterType": "Convolution",
                    "Weights": {"Type": "Int8", "Count": 2048},
                    "TacticName": "sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32",
                    "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu]",
                }
            ]
        }
    )
    (layer,) = read_layers(text)
    assert layer == Layer(
        "conv1",
        "CaskConvolution",
        (Operand(found, (1, 64), "x"),),
        (Operand("int8", (2048,)),),
        (Operand(found, (1,), "y"),),
        ("conv1", "relu"),
        "sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32",
    )
    assert layer.product
    assert layer.weights == Operand("int8", (2048,))


@pytest.mark.parametrize(
    "text", ["Layers:\n", "Layers:\nName: odd", "{}", "not JSON", '{"Layers": []}', "[1]"]
)
def test_a_table_that_cannot_be_read(text: str) -> None:
    with pytest.raises(DeployError):
        read_layers(text)


def test_the_file_of_tables() -> None:
    table = LayerTable({"kgen": 1}, {'a "name"': "int8"}, read_layers(LOG))
    raw = encode_tables({"detector.engine": table, "masks.engine": table})
    assert msgspec.json.decode(raw, type=dict[str, LayerTable]) == {
        "detector.engine": table,
        "masks.engine": table,
    }
    assert raw.count(b'\n   {"name"') == 6
