"""An engine that is not what its graph says is refused, whichever way it differs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.engine.layers import read_layers
from pointrend_deploy.engine.precision_check import check_precision, check_record, table_of
from pointrend_deploy.errors import DeployError
from tests.engine.tables import line

SOUND: dict[str, dict[str, str]] = {
    "conv": {
        "kind": "correlation",
        "inputs": "Int8[1,64,8,8]",
        "constants": "Int8[32,64,3,3] Float[1,32,1,1] Float[1,32,1,1]",
        "outputs": "Float[1,32,8,8]",
        "nodes": "a a.weight.dequantize",
    },
    "scaling": {
        "kind": "kgen",
        "inputs": "Float[1,32,8,8]",
        "constants": "Float[1,32,1,1] Half[1]",
        "outputs": "Int8[1,32,8,8]",
        "nodes": "a relu a.out.quantize",
        "name": "__myl_MulCastAddReluMulMinMaxRounCast",
    },
    "merged": {
        "kind": "gemm",
        "inputs": "Int8[4,32]",
        "constants": "Int8[32,64] Float[1] Float[1]",
        "outputs": "Float[4,64]",
        "nodes": "b c",
        "name": "b+c",
    },
    "half": {
        "kind": "correlation",
        "inputs": "Half[1,64,8,8] Half[1,16,8,8]",
        "constants": "Half[16,64,1,1] Float[1] Float[1] Half[1,16,1,1]",
        "outputs": "Half[1,16,8,8]",
        "nodes": "d add",
    },
    "fused": {
        "kind": "runtime_fusion",
        "inputs": "Float[4,1] Half[4,8] Half[8,6]",
        "constants": "Half[1,6]",
        "outputs": "Float[4,6]",
        "nodes": "e to_fp32",
        "name": "__myl_FcCastAdd",
        "tactic": "__myl_FcCastAdd_0xfc",
    },
    "held": {
        "kind": "runtime_fusion",
        "inputs": "Float[4,8]",
        "constants": "Half[1,6] Half[8,6]",
        "outputs": "Half[4,6]",
        "nodes": "to_fp16 g relu",
        "name": "__myl_CastFcAddRelu",
        "tactic": "__myl_CastFcAddRelu_0xfc",
    },
    "float": {
        "kind": "gemm",
        "inputs": "Float[4,32] Float[32,2]",
        "constants": "Float[1] Float[1]",
        "outputs": "Float[4,2]",
        "nodes": "f",
    },
}
WEIGHTED = {
    "a": "int8",
    "b": "int8",
    "c": "int8",
    "d": "float16",
    "e": "float16",
    "f": "float32",
    "g": "float16",
}


def check(rows: dict[str, dict[str, str]], hint: str = "") -> None:
    text = "\n".join(["Layers:", *(line(**row) for row in rows.values())])
    check_precision(table_of(read_layers(text), WEIGHTED), WEIGHTED, hint)


def changed(row: str, **fields: str) -> dict[str, dict[str, str]]:
    return {**SOUND, row: {**SOUND[row], **fields}}


def test_a_sound_table() -> None:
    text = "\n".join(["Layers:", *(line(**row) for row in SOUND.values())])
    table = table_of(read_layers(text), WEIGHTED)
    assert table.weighted == WEIGHTED
    assert table.kinds == {"correlation": 2, "kgen": 1, "gemm": 2, "runtime_fusion": 2}
    for precision in ("fp32", "fp16", "int8"):
        check(SOUND, precision)


@pytest.mark.parametrize(
    ("row", "fields", "words"),
    [
        ("conv", {"inputs": "Half[1,64,8,8] Half[32,64,3,3]", "constants": "Float[1] Float[1]"},
         "1 of 7 .*: 1 meant for int8 compute in float16: a$"),
        ("conv", {"constants": "Float[32,64,3,3] Float[1]"}, "compute in float32/int8: a$"),
        ("conv", {"inputs": "Float[1,64,8,8]"}, "compute in float32/int8: a$"),
        ("merged", {"inputs": "Float[4,32]", "constants": "Float[32,64] Float[1] Float[1]"},
         "2 of 7 .*: 2 meant for int8 compute in float32: b, c$"),
        ("merged", {"nodes": "b"}, "1 meant for int8 are named by no layer: c$"),
        ("merged", {"kind": "kgen"}, "2 meant for int8 compute in int8 made float again: b, c$"),
        ("conv", {"nodes": "z"}, "1 meant for int8 compute in float32: a$"),
        ("half", {"inputs": "Int8[1,64,8,8]", "constants": "Int8[16,64,1,1] Float[1,16,1,1]"},
         "1 meant for float16 compute in int8: d$"),
        ("half", {"inputs": "Float[1,64,8,8]", "constants": "Float[16,64,1,1] Float[1]"},
         "1 meant for float16 compute in float32: d$"),
        ("fused", {"inputs": "Float[4,1] Float[4,8] Half[8,6]"}, "compute in float16/float32: e$"),
        ("held", {"constants": "Half[1,6] Float[8,6]"}, "for float16 compute in float32: g$"),
        ("held", {"inputs": "Int8[4,8]", "constants": "Half[1,6] Int8[8,6]"},
         "for float16 compute in int8 made float again: g$"),
        ("float", {"inputs": "Half[4,32] Half[32,2]"}, "meant for float32 compute in float16: f$"),
        ("float", {"nodes": "z"}, "1 meant for float32 are named by no layer: f$"),
    ],
)  # fmt: skip
def test_what_is_refused(row: str, fields: dict[str, str], words: str) -> None:
    with pytest.raises(DeployError, match=f"(?m){words}") as caught:
        check(changed(row, **fields))
    assert "nothing was written" in caught.value.hint


def test_int8_of_no_node() -> None:
    rows = {**SOUND, "more": {**SOUND["conv"], "nodes": "z"}}
    with pytest.raises(DeployError, match="layer z_myl0_1 computes in int8, and no node meant"):
        check(rows)


def test_a_kernel_whose_name_says_int8() -> None:
    tactic = "sm80_xmma_gemm_i8i8_i8i32_f32_tn"
    check(changed("merged", kind="runtime_fusion", tactic=tactic))


def test_sums_that_float16_does_not_hold() -> None:
    words = "b writes its sums of int8 products as float16 before they are scaled: .* 65504"
    with pytest.raises(DeployError, match=f"(?m){words}"):
        check(changed("merged", outputs="Half[4,64]"))
    check(changed("conv", outputs="Half[1,32,8,8]"))  # scaled a channel before it is written


def test_what_to_do_where_the_target_is_the_reason() -> None:
    fields = {"inputs": "Half[1,64,8,8]", "constants": "Half[32,64,3,3] Float[1]"}
    with pytest.raises(DeployError) as caught:
        check(changed("conv", **fields), hint="build --precision fp16")
    assert caught.value.hint.endswith("build --precision fp16")
    with pytest.raises(DeployError) as caught:
        check(changed("conv", **fields))
    assert "--keep-fp16" in caught.value.hint
    with pytest.raises(DeployError) as caught:
        check(changed("float", nodes="z"), hint="build --precision fp16")
    assert "build --precision" not in caught.value.hint


def test_many_nodes_are_counted_not_listed() -> None:
    weighted = {f"n{i}": "int8" for i in range(9)}
    row = {**SOUND["half"], "nodes": " ".join(weighted)}
    table = table_of(read_layers(f"Layers:\n{line(**row)}"), weighted)
    with pytest.raises(DeployError, match=r"(?m)9 of 9 .* in float16: n0, n1, n2 and 6 more$"):
        check_precision(table, weighted)


def test_a_table_of_another_graph() -> None:
    rows = {row: {**fields, "nodes": "z"} for row, fields in SOUND.items()}
    with pytest.raises(DeployError, match="name none of the graph's products"):
        check(rows)


def test_one_of_several_graphs_may_have_no_layer_of_the_precision() -> None:
    rest = {"e": "float16", "f": "float32"}
    kept = [row for row in SOUND.values() if set(row["nodes"].split()) & set(rest)]
    text = "\n".join(["Layers:", *(line(**row) for row in kept)])
    check_precision(table_of(read_layers(text), rest), rest)
    check_record(RECORD, {**WEIGHTED, **rest}, "int8")


def test_graphs_that_are_not_of_their_precision() -> None:
    with pytest.raises(DeployError, match="no node of the int8 graphs computes in int8"):
        check_record(QuantizedRecord(fallback="fp16"), {"d": "float16"}, "int8")


def inspected(**fields: Any) -> str:
    """A convolution in INT8 as full TensorRT's inspector writes it."""
    layer = {
        "Name": "conv1.weight + conv1.weight.dequantize + conv1",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Dimensions": [1, 64, 8, 8], "Format/Datatype": "Int8"}],
        "Outputs": [{"Name": "y", "Dimensions": [1, 32, 8, 8], "Format/Datatype": "FP16"}],
        "Weights": {"Type": "Int8", "Count": 18432},
        "TacticName": "sm80_xmma_fprop_implicit_gemm_i8f16_i8i32_f32",
        "Metadata": "[ONNX Layer: conv1.weight.dequantize]\x1e[ONNX Layer: conv1]",
    }
    return json.dumps({"Layers": [{**layer, **fields}]})


def test_the_inspector_of_full_tensorrt() -> None:
    weighted = {"conv1": "int8"}
    check_precision(table_of(read_layers(inspected()), weighted), weighted)
    for fields, found in (
        ({"Weights": {"Type": "Half", "Count": 18432}}, "float16/int8"),
        ({"Inputs": [{"Format/Datatype": "Channel major FP16 format"}]}, "float16/int8"),
        ({"Inputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]}, "N/A due to dynamic"),
        ({"Metadata": ""}, "name none"),
    ):
        table = table_of(read_layers(inspected(**fields)), weighted)
        with pytest.raises(DeployError, match=found):
            check_precision(table, weighted)


RECORD = QuantizedRecord(fallback="fp16", fp32=("f",), int8=("a", "b", "c"))


def test_the_record_and_the_graph_agree() -> None:
    check_record(RECORD, WEIGHTED, "int8")
    with pytest.raises(DeployError, match="manifest does not say what the int8 graph"):
        check_record(None, WEIGHTED, "int8")


@pytest.mark.parametrize(
    ("weighted", "words"),
    [
        ({**WEIGHTED, "a": "float16"}, "1 nodes .* a is float16, not int8"),
        ({**WEIGHTED, "d": "int8"}, "d is int8, not float16"),
        ({**WEIGHTED, "f": "float16"}, "f is float16, not float32"),
        ({n: t for n, t in WEIGHTED.items() if n != "a"}, "a is none of its nodes, not int8"),
    ],
)
def test_a_record_of_another_graph(weighted: dict[str, str], words: str) -> None:
    with pytest.raises(DeployError, match=words):
        check_record(RECORD, weighted, "int8")
