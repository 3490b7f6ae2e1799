"""The bodies of both RoIAligns and of PointRendNMS in ONNX Runtime, against the eager ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from pointrend_deploy.graph.bodies import nms_body, roi_align_body, roi_align_fixed_body
from pointrend_deploy.graph.ops import (
    DOMAIN,
    NMS,
    PLUGIN_ATTRIBUTES,
    ROI_ALIGN,
    ROI_ALIGN_FIXED,
    VERSION,
    pool,
    suppress,
)
from tests.graph.instance.test_ops import boxes

INFINITY = float("inf")


def run_nodes(
    op: str, body: onnx.FunctionProto, inputs: list[Tensor], outputs: int, *calls: dict[str, Any]
) -> list[list[np.ndarray]]:
    """One node a call, all in one file with one body: the outputs of each."""
    names = [f"in{index}" for index in range(len(inputs))]
    written = [[f"call{n}.out{i}" for i in range(outputs)] for n in range(len(calls))]
    kind = 7 if op == NMS else 1
    made = onnx.helper.make_graph(
        [
            onnx.helper.make_node(op, names, outs, domain=DOMAIN, **PLUGIN_ATTRIBUTES, **call)
            for outs, call in zip(written, calls, strict=True)
        ],
        "nodes",
        [
            onnx.helper.make_tensor_value_info(name, 1, value.shape)
            for name, value in zip(names, inputs, strict=True)
        ],
        [onnx.helper.make_tensor_value_info(o, kind, None) for outs in written for o in outs],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(DOMAIN, VERSION)]
    proto = onnx.helper.make_model(made, opset_imports=opsets, functions=[body], ir_version=10)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return [session.run(outs, feed) for outs in written]


def thresholds(k: int, iou: float, least: float) -> dict[str, Any]:
    return {"k": k, "iou_threshold": iou, "score_threshold": least}


CALLS = [(7, 0.3, 0.5), (200, 0.7, -INFINITY), (60, 0.5, 0.05)]


@pytest.mark.parametrize("seed", range(6))
def test_suppression_of_several_nodes_with_one_body(seed: int) -> None:
    """Odd seeds: whole-number boxes and few scores, so ties and IoUs right at the threshold."""
    box = boxes(2, 5, 60, seed=seed)
    score = torch.rand(2, 5, 60, generator=torch.Generator().manual_seed(seed))
    if seed % 2:
        box, score = box.round(), (score * 20).round() / 20
    score[0, 0, 3], score[0, 1, 4], box[0, 2, 3] = float("nan"), -INFINITY, 0.0
    box[1, 0, 7] = float("nan")
    score[1, 0, 7] = -INFINITY
    calls = [thresholds(*call) for call in CALLS]
    for call, found in zip(CALLS, run_nodes(NMS, nms_body(), [box, score], 2, *calls), strict=True):
        indices, count = suppress(box, score, *call)
        assert np.array_equal(found[0], indices.numpy()), call
        assert np.array_equal(found[1], count.numpy()), call


def test_nothing_to_keep() -> None:
    score = torch.full((2, 3, 4), -INFINITY)
    call = thresholds(5, 0.5, -INFINITY)
    (indices, count), *_ = run_nodes(NMS, nms_body(), [boxes(2, 3, 4), score], 2, call)
    assert not indices.any() and not count.any()


def test_an_overlap_at_the_threshold_stays() -> None:
    """IoU of exactly one half is not above one half; a score of exactly the threshold is not."""
    box = torch.tensor([[[[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0], [9.0, 9.0, 10.0, 10.0]]]])
    score = torch.tensor([[[0.9, 0.8, 0.5]]])
    call = thresholds(3, 0.5, 0.5)
    (indices, count), *_ = run_nodes(NMS, nms_body(), [box, score], 2, call)
    assert indices.tolist() == [[0, 1, 0]] and count.tolist() == [2]


@pytest.mark.parametrize(("first", "levels", "side"), [(2, 4, 7), (2, 3, 7), (3, 2, 14), (2, 1, 5)])
def test_pooling(first: int, levels: int, side: int) -> None:
    """Boxes of all levels, off the map, without area, and right at the bounds between levels."""
    maps = [torch.randn(2, 3, 96 >> i, 120 >> i) for i in range(levels)]
    box = boxes(2, 80, scale=480.0)
    box[0, 0] = 0.0
    for row, side_length in enumerate((28.0, 56.0, 112.0, 224.0, 448.0)):
        box[1, row] = torch.tensor([3.0, 3.0, 3.0 + side_length, 3.0 + side_length])
    call = {"first_level": first, "levels": levels, "side": side}
    inputs = [box, *maps, *[maps[-1]] * (4 - levels)]
    ((found,),) = run_nodes(ROI_ALIGN, roi_align_body(), inputs, 1, call)
    wanted = pool(box, maps, first, side).numpy()
    assert np.abs(found - wanted).max() < 2e-6
    assert not found[0].any()
    # A planted error: the boxes one level up.
    moved = pool(box * 2, maps, first, side).numpy()
    assert np.abs(found - moved).max() > 0.1


@pytest.mark.parametrize(("levels", "side", "ratio"), [(4, 7, 2), (3, 14, 3), (1, 5, 1)])
def test_pooling_with_a_fixed_number_of_samples(levels: int, side: int, ratio: int) -> None:
    """Boxes of all levels, off the map and without area, which have samples too."""
    maps = [torch.randn(2, 3, 96 >> i, 120 >> i) for i in range(levels)]
    box = boxes(2, 60, scale=480.0)
    box[0, 0] = torch.tensor([50.0, 60.0, 50.0, 60.0])
    calls = [
        {"first_level": 2, "levels": levels, "side": side, "sampling_ratio": each}
        for each in (ratio, ratio + 1)
    ]
    inputs = [box, *maps, *[maps[-1]] * (4 - levels)]
    found = run_nodes(ROI_ALIGN_FIXED, roi_align_fixed_body(), inputs, 1, *calls)
    for (pooled,), each in zip(found, (ratio, ratio + 1), strict=True):
        assert np.abs(pooled - pool(box, maps, 2, side, each).numpy()).max() < 2e-6
        assert pooled[0].any()
    assert np.abs(found[0][0] - found[1][0]).max() > 0.1


def test_bodies_declare_what_the_nodes_say() -> None:
    assert list(nms_body().attribute) == [
        "k",
        "iou_threshold",
        "score_threshold",
        *PLUGIN_ATTRIBUTES,
    ]
    assert list(roi_align_body().attribute)[:3] == ["first_level", "levels", "side"]
    assert len(roi_align_body(19).input) == 5
    assert roi_align_body(19).opset_import[0].version == 19
