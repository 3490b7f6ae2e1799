"""All RoIs at once: the same function as the reference in float64, 1e-9, and in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.cost import hands_logits_on
from pointrend_deploy.graph.instance.masks import InstanceMasks
from pointrend_deploy.graph.instance.rows import ALIGNED, aligned, handing_on
from pointrend_deploy.graph.ops import DOMAIN
from tests.fixtures.instance_mask_parts import Problem
from tests.graph.instance.test_masks import EXACT, agree, compare, exported, onnx_run, run

WIDTH = 8
"""Channels of a hidden layer of :class:`Problem`."""


@pytest.mark.parametrize("rois", [1, 5, 20])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"classes": 7},
        {"classes": 12},
        {"classes": 13},
        {"class_agnostic": True},
        {"coarse_in_every_layer": False},
        {"num_fc": 1},
        {"num_fc": 2},
        {"num_fc": 4, "classes": 3},
        {"points": 195},
    ],
    ids=str,
)
def test_equals_the_reference(rois: int, change: dict[str, Any]) -> None:
    """Logits are handed on for up to 12 classes here, the layers' coarse parts for more."""
    problem = Problem(rois, **change)
    compare(run(problem, problem.masks(rows=True)), problem.reference(), EXACT)


def test_pictures_together_are_pictures_one_by_one() -> None:
    problems = [Problem(4), Problem(4)]
    problems[1].features = {"p2": problems[0].features["p2"].roll((3, 5), dims=(2, 3))}
    problems[1].boxes = problems[0].boxes.flip(0) + 3.0
    masks = problems[0].masks(rows=True)
    alone = [run(problem, masks) for problem in problems]
    boxes = torch.cat([problem.boxes for problem in problems])
    classes = torch.cat([problem.classes for problem in problems])
    together = masks(boxes, classes, torch.cat([p.features["p2"] for p in problems]))
    assert list(together) == list(alone[0])
    for name, value in together.items():
        wanted = torch.cat([each[name] for each in alone])
        assert value.shape == wanted.shape, name
        assert float((value - wanted).abs().max()) < EXACT, name


def test_boxes_partly_outside_the_picture_and_padding_rows() -> None:
    problem = Problem(rois=5)
    problem.boxes[:, :2] -= 40.0
    problem.boxes[2] = torch.tensor([-500.0, -500.0, -400.0, -400.0])
    problem.boxes[3:], problem.classes[3:] = 0.0, 0
    found = run(problem, problem.masks(rows=True))
    assert all(value.isfinite().all() for value in found.values())
    compare(found, problem.reference(), EXACT)


@pytest.mark.parametrize("classes", [7, 60])
@pytest.mark.parametrize(
    "buffer", ["fine", "coarse", "bias", "weight0", "bias1", "predictor", "predictor_coarse"]
)
def test_comparison_notices_a_planted_error(buffer: str, classes: int) -> None:
    problem = Problem(rois=3, classes=classes)
    masks = problem.masks(rows=True)
    masks.point_head.register_buffer(buffer, masks.point_head.get_buffer(buffer) + 1e-3)
    with pytest.raises(AssertionError):
        compare(run(problem, masks), problem.reference(), EXACT)


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_handed_on_adds_the_coarse_parts(whole: bool) -> None:
    """Each layer's block adds its part to the layer and leaves what later layers need."""
    torch.manual_seed(0)
    parts = [torch.randn(5, WIDTH, dtype=torch.float64) for _ in range(3)]
    logits = torch.randn(11, 5, dtype=torch.float64)
    first, blocks = handing_on(parts, 5, whole)
    handed = logits @ first
    for part, block in zip(parts, blocks, strict=True):
        assert block.shape[0] == handed.shape[1]
        added, handed = torch.split(handed @ block, [WIDTH, block.shape[1] - WIDTH], dim=1)
        assert float((added - logits @ part).abs().max()) < 1e-12
    assert handed.shape == (11, 0)


def test_fewer_channels_are_handed_on() -> None:
    """80 classes as they are; 1203 are more than the two layers' parts of 512 and 256 channels."""
    assert hands_logits_on(80, 256, 2) and hands_logits_on(384, 256, 2)
    assert not hands_logits_on(385, 256, 2) and not hands_logits_on(1203, 256, 2)


def test_weights_are_filled_up_with_zeros() -> None:
    weight = torch.ones(3, 17)
    both = aligned(weight, 0, 1)
    assert both.shape == (8, 24) and float(both.sum()) == 3 * 17
    assert aligned(weight, 1).shape == (3, 24)
    assert torch.equal(both[:3, :17], weight)


def kinds(proto: onnx.ModelProto) -> list[str]:
    return sorted(node.op_type for node in proto.graph.node if node.domain == DOMAIN)


@pytest.mark.parametrize(("rois", "classes"), [(1, 60), (5, 7), (20, 60)])
def test_in_onnx_runtime(rois: int, classes: int) -> None:
    """The sampler of the coarse head, and one node a pass: points do not come in groups."""
    problem = Problem(rois, classes, dtype=torch.float32)
    proto, names = exported(problem, problem.masks(rows=True))
    steps = ["PointRendUncertain"] * 3
    assert kinds(proto) == ["PointRendSample", *["PointRendSampleRoIs"] * 4, *steps]
    onnx.checker.check_model(proto)
    agree(onnx_run(proto, problem, names), problem.reference())
    problem.boxes[rois // 2 :], problem.classes[rois // 2 :] = 0.0, 0
    agree(onnx_run(proto, problem, names), problem.reference())


def test_the_number_of_nodes_does_not_grow_with_the_rois() -> None:
    counts = []
    for rois in (2, 40):
        problem = Problem(rois, dtype=torch.float32)
        proto, _ = exported(problem, problem.masks(rows=True))
        counts.append(len(proto.graph.node))
    assert counts[0] == counts[1] < 250


def test_every_row_begins_on_16_bytes_of_fp16() -> None:
    head = Problem(2).masks(rows=True).point_head
    buffers: dict[str, Tensor] = dict(head.named_buffers())
    assert buffers["weight1"].shape[1] % ALIGNED == buffers["coarse"].shape[1] % ALIGNED == 0


def test_several_feature_maps_are_refused() -> None:
    problem = Problem(2, levels=("p2", "p3"))
    with pytest.raises(DeployError, match="one feature map"):
        problem.masks(rows=True)
    assert isinstance(problem.masks(), InstanceMasks)
