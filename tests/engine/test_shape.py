"""Layers and bytes of an engine, counted in tables that are planted."""

from __future__ import annotations

import json
import re

import pytest

from pointrend_deploy.bundle.records import EngineShape, PartShape
from pointrend_deploy.engine.layers import Layer, Operand, read_layers
from pointrend_deploy.engine.shape import (
    BANDWIDTHS_GB_S,
    PARTS,
    SHOWN_DEVICES,
    bound_ms,
    in_short,
    only_moves,
    parts_of,
    shape_of,
)
from tests.repository import ROOT


def layer(
    nodes: str, reads: str, writes: str, kind: str = "kgen", name: str = "__myl_Add_myl0_1"
) -> Layer:
    """A layer of tensors of two FP16 values each, named by words."""
    inputs, outputs = (
        tuple(Operand("float16", (2,), one) for one in words.split()) for words in (reads, writes)
    )
    return Layer(name, kind, inputs, (), outputs, tuple(nodes.split()))


NETWORK = (
    layer("image.to_fp16 backbone.bottom_up.stem.conv1", "image", "c1", "correlation", "stem"),
    layer("backbone.fpn_output2", "c1", "p2", "correlation", "fpn"),
    layer("", "p2", "p2_rows", name="__myl_Tran_myl0_2"),
    layer("p2.topk proposal_generator.nms", "p2", "boxes"),
    layer("roi_heads.box_head.fc1 roi_heads.softmax graph.gather", "boxes", "kept"),
    layer("roi_heads.mask_head.sample", "p2_rows kept", "points", "custom_layer", "sample"),
    layer("graph.sigmoid graph.where", "points", "masks"),
    layer("", "masks", "answer", name="__myl_Move_myl0_9"),
)


def test_each_layer_counts_for_its_part() -> None:
    shape = shape_of(NETWORK, {"roi_heads.mask_head.sample": "PointRendSample"}, {})
    assert shape == EngineShape(
        layers=8,
        plugins={"PointRendSample": 1},
        reformats=2,
        bytes=4 * 17,
        constant_bytes=0,
        parts={
            "backbone": PartShape(layers=2, plugins=0, reformats=0, bytes=16),
            "RPN and box head": PartShape(layers=2, plugins=0, reformats=0, bytes=16),
            "mask head": PartShape(layers=3, plugins=1, reformats=1, bytes=28),
            "rest": PartShape(layers=1, plugins=0, reformats=1, bytes=8),
        },
    )


@pytest.mark.parametrize(
    ("node", "part"),
    [
        ("normalise.sub", "backbone"),
        ("backbone.bottom_up.res2.0.conv1", "backbone"),
        ("proposal_generator.rpn_head.conv.p2", "RPN and box head"),
        ("p6.topk", "RPN and box head"),
        ("roi_heads.pointrendroialign", "RPN and box head"),
        ("roi_heads.mask_head.point_head.fc1", "mask head"),
        ("sem_seg_head.p2.0.norm.mul", "semantic head"),
        ("sem_seg_head.coarse_sem_seg_head.predictor", "semantic head"),
        ("sem_seg_head.point_head.step1.pointrendsample", "subdivision"),
        ("step0.pointrenduncertain", "subdivision"),
        ("sem_seg_head_of_another", "rest"),
        ("p2_of_another", "rest"),
    ],
)
def test_the_name_of_a_node_tells_its_part(node: str, part: str) -> None:
    assert parts_of([layer(node, "", "out")]) == [part]
    assert part in PARTS


def test_a_cast_of_an_input_is_of_the_part_that_reads_it() -> None:
    table = [layer("p2.to_fp16", "p2", "half"), layer("roi_heads.mask_head.sample", "half", "out")]
    assert parts_of(table) == ["mask head", "mask head"]
    assert parts_of([*NETWORK[:2], layer("p2.quantize", "p2", "q")]) == ["backbone"] * 3


def test_a_fused_layer_is_of_the_part_of_most_of_its_nodes() -> None:
    mixed = layer("backbone.fpn_output2 roi_heads.slice roi_heads.add", "a", "b")
    assert parts_of([mixed]) == ["RPN and box head"]
    assert parts_of([layer("step1.max sem_seg_head.predictor", "a", "b")]) == ["subdivision"]


def test_a_layout_change_is_of_the_first_that_reads_it_even_through_another() -> None:
    changes = [layer("", "x", "y"), layer("", "y", "z")]
    readers = [layer("step0.max", "z", "a"), layer("backbone.add", "z", "b")]
    assert parts_of([*changes, *readers])[:2] == ["subdivision", "subdivision"]
    assert parts_of(changes) == ["rest", "rest"]


@pytest.mark.parametrize(
    ("name", "kind", "moves"),
    [
        ("__myl_Tran_myl0_3", "kgen", True),
        ("__myl_ReshTranCastConc_myl0_3", "kgen", True),
        ("__myl_TranAddRelu_myl0_3", "kgen", False),
        ("__myl_SlicSlicEtc_myl0_3", "kgen", False),
        ("__myl_FcCast_myl0_3", "runtime_fusion", False),
        ("Reformatting CopyNode for Input Tensor 0 to conv1", "Reformat", True),
        ("shuffle", "Shuffle", True),
        ("conv1", "CaskConvolution", False),
        ("roi_heads.mask_head.transpose_of_points", "custom_layer", False),
    ],
)
def test_layers_that_compute_nothing(name: str, kind: str, moves: bool) -> None:
    assert only_moves(layer("backbone.x", "a", "b", kind, name)) is moves


def test_what_launches_nothing_is_not_counted() -> None:
    waits = [layer("", "", "", kind) for kind in ("signal", "wait", "shape_call", "NoOp")]
    assert shape_of([*waits, *NETWORK], {}, {}).layers == len(NETWORK)


def test_bytes_follow_types_and_weights_count_apart() -> None:
    inputs = (
        Operand("float32", (2, 3)),
        Operand("int8", (5,)),
        Operand("int64", (1,)),
        Operand("a type of tomorrow", (7,)),
        Operand("float32"),
    )
    held = (Operand("float16", (10, 10)),)
    shape = shape_of([Layer("x", "gemm", inputs, held, (), ("backbone.x",))], {}, {})
    assert (shape.bytes, shape.constant_bytes) == (24 + 5 + 8 + 7, 200)


def test_full_tensorrt_is_counted_alike() -> None:
    """An inspector's JSON with a plugin, a reformat and a convolution with weights."""
    half = "Half"

    def tensor(name: str, *sizes: int) -> dict[str, object]:
        return {"Name": name, "Dimensions": sizes, "Format/Datatype": half}

    text = json.dumps(
        {
            "Layers": [
                {
                    "Name": "Reformatting CopyNode for Input Tensor 0",
                    "LayerType": "Reformat",
                    "Inputs": [tensor("image", 1, 3, 8, 8)],
                    "Outputs": [tensor("copied", 1, 3, 8, 8)],
                },
                {
                    "Name": "conv1",
                    "LayerType": "CaskConvolution",
                    "Inputs": [tensor("copied", 1, 3, 8, 8)],
                    "Outputs": [tensor("c1", 1, 4, 8, 8)],
                    "Weights": {"Type": half, "Count": 108},
                    "Metadata": "[ONNX Layer: backbone.bottom_up.conv1]",
                },
                {
                    "Name": "sample",
                    "LayerType": "PluginV3",
                    "Inputs": [tensor("c1", 1, 4, 8, 8)],
                    "Outputs": [tensor("answer", 1, 4, 10)],
                    "Metadata": "[ONNX Layer: step0.sample]",
                },
            ]
        }
    )
    shape = shape_of(read_layers(text), {"step0.sample": "PointRendSample"}, {})
    image, c1 = 2 * 192, 2 * 256
    assert shape.plugins == {"PointRendSample": 1}
    assert (shape.reformats, shape.constant_bytes) == (1, 216)
    assert {part: one.bytes for part, one in shape.parts.items()} == {
        "backbone": 3 * image + c1,
        "subdivision": c1 + 80,
    }


def test_the_bound_is_bytes_over_bandwidth() -> None:
    assert bound_ms(204_800_000, 204.8) == pytest.approx(1.0)
    assert bound_ms(4_899_092_116, 102.4) == pytest.approx(47.843, abs=1e-3)
    assert bound_ms(0, 68.0) == 0.0


def test_the_line_for_the_terminal_says_that_nothing_was_measured() -> None:
    shape = EngineShape(
        layers=981,
        plugins={"PointRendNMS": 2, "PointRendSample": 105},
        reformats=88,
        bytes=4_899_092_116,
        constant_bytes=1,
        parts={},
        sizes={"R": 100},
    )
    assert in_short(shape) == (
        "layers 981, plugins 107, reformats 88, 4.90 GB a call with R = 100: at least 23.9 ms at "
        "205 GB/s, counted and not measured"
    )


def test_every_bandwidth_stands_in_the_documentation() -> None:
    text = (ROOT / "docs" / "engine.md").read_text()
    documented = dict(re.findall(r"^\| (Jetson [^|]+) \| ([\d.]+) \|", text, re.MULTILINE))
    assert {name: float(value) for name, value in documented.items()} == BANDWIDTHS_GB_S
    assert set(SHOWN_DEVICES) <= set(BANDWIDTHS_GB_S)
