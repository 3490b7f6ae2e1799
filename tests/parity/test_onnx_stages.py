"""The inner stages of graphs: found by the nodes' names, computed as the graph computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.instance.same_boxes import used_rows
from pointrend_deploy.parity.noise import StageSums, entry
from pointrend_deploy.parity.onnx_stages import SemanticStages, Tap, TappedGraph, read_graph, taps

BLOCKS = ("stem", "blocks.0", "blocks.1", "blocks.2")
NAMES = tuple(f"backbone.bottom_up.{block}" for block in BLOCKS)
IMAGE = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)


def graph(path: Path, spoilt: str = "", half: bool = False) -> Path:
    """Four blocks of two nodes, a level p2, coarse logits, points of a step and their logits."""
    rng = np.random.default_rng(7)
    nodes, weights = [], []
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    value = "image"
    if half:
        nodes.append(helper.make_node("Cast", [value], ["half"], to=kind, name="cast"))
        value = "half"

    def conv(name: str, out: str) -> None:
        nonlocal value
        weight = rng.standard_normal((4, 4, 1, 1)).astype(np.float32) / 2
        if name.startswith(spoilt) and spoilt:
            weight = weight + 0.5 * rng.standard_normal(weight.shape).astype(np.float32)
        stored = weight.astype(np.float16) if half else weight
        weights.append(numpy_helper.from_array(stored, f"{name}.weight"))
        nodes.append(helper.make_node("Conv", [value, f"{name}.weight"], [out], name=name))
        value = out

    for block in NAMES:
        conv(f"{block}.conv", f"{block}.conv.out")
        nodes.append(helper.make_node("Relu", [value], [f"{block}.relu.out"], name=f"{block}.relu"))
        value = f"{block}.relu.out"
    conv("backbone.fpn_output2", "p2")
    conv("sem_seg_head.predictor", "coarse")
    if half:
        nodes.append(helper.make_node("Cast", ["coarse"], ["whole"], to=1, name="cast_back"))
        value = "whole"
    shape = numpy_helper.from_array(np.array([2, 4, 64]), "shape")
    k = numpy_helper.from_array(np.array([5]), "k")
    axes = numpy_helper.from_array(np.array([1]), "axes")
    nodes += [
        helper.make_node("Reshape", [value, "shape"], ["flat"], name="flat"),
        helper.make_node("ReduceMax", ["flat", "axes"], ["best"], name="best", keepdims=0),
        helper.make_node("TopK", ["best", "k"], ["most", "step0.indices"], name="step0.topk"),
        helper.make_node("ArgMax", ["flat"], ["labels"], name="labels", axis=1, keepdims=0),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, IMAGE.shape)],
            [helper.make_tensor_value_info("labels", TensorProto.INT64, (2, 64))],
            [*weights, shape, k, axes],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, str(path))
    return path


def test_stages_stand_in_network_order(tmp_path: Path) -> None:
    found = taps(read_graph(graph(tmp_path / "a.onnx")))
    assert [tap.stage for tap in found] == [*NAMES, "p2", "coarse", "step0.indices"]
    assert found[1].values == ("backbone.bottom_up.blocks.0.relu.out",), "a block's last value"


@pytest.mark.parametrize("block", NAMES)
def test_perturbed_weights_are_found_in_the_block_they_are_in(tmp_path: Path, block: str) -> None:
    wanted = taps(read_graph(graph(tmp_path / "fp32.onnx")))
    fp32 = SemanticStages(tmp_path / "fp32.onnx", wanted)
    spoilt = SemanticStages(graph(tmp_path / "fp16.onnx", f"{block}."), wanted)
    sums = StageSums()
    sums.add(fp32({"image": IMAGE}), spoilt({"image": IMAGE}))
    first = entry(sums.stages())
    assert first is not None and first.stage == block
    assert all(row.noise == 0 for row in sums.stages()[: NAMES.index(block)])


def test_half_precision_values_are_given_under_the_same_names(tmp_path: Path) -> None:
    wanted = taps(read_graph(graph(tmp_path / "fp32.onnx")))
    fp32 = SemanticStages(tmp_path / "fp32.onnx", wanted)({"image": IMAGE})
    half = SemanticStages(graph(tmp_path / "fp16.onnx", half=True), wanted)({"image": IMAGE})
    assert half[NAMES[0]].dtype == np.float16
    assert list(half) == list(fp32)
    sums = StageSums()
    sums.add(fp32, half)
    assert all(55 < (row.snr_db or 0) < 80 for row in sums.stages()), sums.stages()


def test_given_values_are_fed_and_only_what_is_needed_is_read(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx")
    fed = TappedGraph(path, [Tap("coarse", ("coarse",))], {"p2": "float32"}, ["step0.indices"])
    assert fed.inputs == ("given.p2",)
    p2 = np.random.default_rng(3).standard_normal((2, 4, 8, 8)).astype(np.float32)
    stages, (indices,) = fed({"given.p2": p2, "image": IMAGE})
    (weight,) = (
        numpy_helper.to_array(each)
        for each in onnx.load(str(path)).graph.initializer
        if each.name == "sem_seg_head.predictor.weight"
    )
    expected = np.einsum("nchw,oc->nohw", p2, weight[:, :, 0, 0])
    np.testing.assert_allclose(stages["coarse"][0], expected, atol=1e-5)
    assert indices.shape == (2, 5)


def test_a_value_that_a_graph_lacks_is_left_out(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx")
    found = SemanticStages(path, [Tap("p9", ("p9",)), Tap("p2", ("p2",))])({"image": IMAGE})
    assert list(found) == ["p2"]


def test_what_onnxruntime_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    found = SemanticStages(graph(tmp_path / "a.onnx"), [Tap("p2", ("p2",))])
    with pytest.raises(DeployError, match="inner stages"):
        found({"image": IMAGE[:, :3]})


def instance_graph(named: bool) -> onnx.GraphProto:
    """Only what is read of an instance graph: names, operations, values."""

    def node(op: str, name: str, *inputs: str, out: str = "") -> Any:
        return helper.make_node(op, list(inputs), [out or f"{name}.out"], name=name)

    rpn, head = "proposal_generator.rpn_head.objectness_logits", "roi_heads.mask_head"
    points = "step1.indices" if named else f"{head}.pointrenduncertain.out"
    nodes = [
        node("Conv", "backbone.fpn_output2", "x", out="p2"),
        node("Conv", f"{rpn}.p2", "p2"),
        node("Conv", f"{rpn}.p3", "p3"),
        node("Transpose", f"{rpn}.p3.transpose", f"{rpn}.p3.out"),
        node("Gemm", "roi_heads.box_predictor.cls_score", "rois"),
        node("Gemm", f"{head}.coarse_head.prediction", "r", out="coarse" if named else ""),
        node("PointRendUncertain", f"{head}.pointrenduncertain", "u", out=points),
        node("Add", f"{head}.add", "a", "b", out="step1.point_logits" if named else "added"),
        node("ScatterElements", f"{head}.scatter", "grid", points, "added"),
        node("Reshape", f"{head}.reshape", f"{head}.scatter.out", out="mask_logits"),
    ]
    return helper.make_graph(nodes, "things", [], [])


@pytest.mark.parametrize("named", [True, False])
def test_an_instance_graphs_stages_have_the_same_names_in_both_layouts(named: bool) -> None:
    found = {tap.stage: tap.values for tap in taps(instance_graph(named))}
    assert list(found)[:3] == [
        "p2",
        "proposal_generator.rpn_head.objectness_logits",
        "roi_heads.box_predictor.cls_score",
    ]
    assert len(found["proposal_generator.rpn_head.objectness_logits"]) == 2
    assert set(list(found)[3:]) == {"coarse", "step1.indices", "step1.point_logits", "mask_logits"}
    assert found["step1.point_logits"] == (("step1.point_logits",) if named else ("added",))
    assert list(found)[-1] == "mask_logits"


def test_used_rows_come_one_after_the_other() -> None:
    values = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    counts = np.array([1, 2])
    expected = np.array([[0, 1], [6, 7], [8, 9]])
    np.testing.assert_array_equal(used_rows(values, counts, 3), expected)
    np.testing.assert_array_equal(used_rows(values.reshape(6, 2), counts, 3), expected)
    assert used_rows(values, np.array([0, 0]), 3).shape == (0, 2)


def test_pictures_of_a_batch_that_are_refined_one_by_one_are_one_stage() -> None:
    head = "roi_heads.mask_head"
    nodes = []
    for picture in "ab":
        grid = f"coarse.{picture}"
        name = f"{head}.coarse_head.prediction" + ("" if picture == "a" else ".gemm")
        nodes.append(helper.make_node("Gemm", [f"rois.{picture}", "w"], [grid], name=name))
        for step in "12":
            at = f"{picture}{step}"
            nodes += [
                helper.make_node("Resize", [grid], [f"up.{at}"], name=f"{head}.up.{at}"),
                helper.make_node(
                    "ScatterElements",
                    [f"up.{at}", f"points.{at}", f"logits.{at}"],
                    [f"grid.{at}"],
                    name=f"{head}.scatter.{at}",
                ),
            ]
            grid = f"grid.{at}"
    found = {tap.stage: tap.values for tap in taps(helper.make_graph(nodes, "two", [], []))}
    assert found == {
        "coarse": ("coarse.a", "coarse.b"),
        "step1.indices": ("points.a1", "points.b1"),
        "step1.point_logits": ("logits.a1", "logits.b1"),
        "step2.indices": ("points.a2", "points.b2"),
        "step2.point_logits": ("logits.a2", "logits.b2"),
    }
