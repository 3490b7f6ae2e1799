"""The mask part is the reference's function: float64, 1e-9, away from ties; and in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.cost import InstanceWork, ProjectionPlan, coarse_flops, plan_instance
from pointrend_deploy.graph.instance.masks import MOST_GROUPS, InstanceMasks, rois_together
from pointrend_deploy.graph.instance.points import InstancePointHead, gather, hats, neighbours
from pointrend_deploy.graph.ops import DOMAIN
from pointrend_deploy.graph.passes.bodies import attach_bodies
from pointrend_deploy.graph.trace import trace
from pointrend_deploy.model.pointrend import point_sample
from tests.fixtures.instance_mask_parts import CHANNELS, Flat, Problem

EXACT = 1e-9


def compare(found: dict[str, Tensor], wanted: dict[str, Tensor], accept: float) -> None:
    """Equal stages; points as sets, their logits point by point."""
    assert list(found) == list(wanted)
    orders: dict[str, Tensor] = {}
    for name, value in found.items():
        step = name.partition(".")[0]
        expected = wanted[name]
        if name.endswith("indices"):
            orders[step] = value.argsort(dim=1)
            value = value.gather(1, orders[step])
            assert torch.equal(value, expected), name
            continue
        if name.endswith("point_logits") and step in orders:
            value = value.gather(2, orders[step].unsqueeze(1))
        if name == "mask_logits":
            expected = expected[:, 0]
        assert value.shape == expected.shape, name
        assert float((value - expected).abs().max()) < accept, name


def run(problem: Problem, masks: InstanceMasks) -> dict[str, Tensor]:
    found: dict[str, Tensor] = masks(
        problem.boxes, problem.classes, *(problem.features[name] for name in masks.features)
    )
    return found


def test_the_number_of_groups_does_not_grow_with_the_detections() -> None:
    assert [rois_together(rois, 1) for rois in (1, 8, 100, 101, 300)] == [4, 4, 4, 5, 12]
    assert rois_together(100, 4) == 16
    assert all(-(-n // rois_together(n, 1)) <= MOST_GROUPS for n in range(1, 4000))


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("every_layer", [False, True])
def test_every_plan(fine: bool, coarse: bool, agnostic: bool, every_layer: bool) -> None:
    problem = Problem(
        rois=3,
        levels=("p2", "p3"),
        class_agnostic=agnostic,
        coarse_in_every_layer=every_layer,
    )
    plan, wanted = ProjectionPlan(fine=(fine, not fine), coarse=coarse), problem.reference()
    for gathered in (False, True):
        masks = problem.masks(rois_at_once=2, gathered=gathered)
        masks.point_head = InstancePointHead(problem.head.point_head, [CHANNELS] * 2, 7, plan)
        compare(run(problem, masks), wanted, EXACT)


@pytest.mark.parametrize("rois", [1, 5, 20])
@pytest.mark.parametrize("at_once", [1, 7, 100])
@pytest.mark.parametrize("gathered", [False, True])
def test_rois_together_or_not(rois: int, at_once: int, gathered: bool) -> None:
    problem = Problem(rois)
    masks = problem.masks(rois_at_once=at_once, gathered=gathered)
    assert sum(masks.groups) == rois
    assert max(masks.groups) <= at_once
    compare(run(problem, masks), problem.reference(), EXACT)


@pytest.mark.parametrize("rois", [1, 3, 6])
@pytest.mark.parametrize("gathered", [False, True])
def test_one_group_takes_any_number_of_rois(rois: int, gathered: bool) -> None:
    """Work planned for five RoIs together runs on another number: nothing holds the five."""
    masks = Problem(5).masks(gathered=gathered, rois_at_once=5)
    problem = Problem(rois)
    fresh = problem.masks(gathered=gathered, rois_at_once=rois)
    fresh.rois, fresh.groups = masks.rois, masks.groups
    compare(run(problem, fresh), problem.reference(), EXACT)


@pytest.mark.parametrize("points", [195, 196, 783])
def test_other_numbers_of_points(points: int) -> None:
    """The first grid is of 7, 14 and 14 cells a side; K is below H*W throughout."""
    problem = Problem(rois=2, points=points)
    compare(run(problem, problem.masks()), problem.reference(), EXACT)


@pytest.mark.parametrize("gathered", [False, True])
def test_boxes_partly_outside_the_picture(gathered: bool) -> None:
    problem = Problem(rois=4)
    problem.boxes[:, :2] -= 40.0
    problem.boxes[1, 2:] += 70.0
    problem.boxes[2] = torch.tensor([-500.0, -500.0, -400.0, -400.0])
    compare(run(problem, problem.masks(gathered=gathered)), problem.reference(), EXACT)


@pytest.mark.parametrize("gathered", [False, True])
def test_padding_rows_are_finite_and_change_no_other_row(gathered: bool) -> None:
    problem = Problem(rois=5)
    masks = problem.masks(gathered=gathered)
    alone = run(problem, masks)["mask_logits"]
    problem.boxes[3:], problem.classes[3:] = 0.0, 0
    padded = run(problem, masks)
    assert all(value.isfinite().all() for value in padded.values())
    assert torch.equal(padded["mask_logits"][:3], alone[:3])
    compare(padded, problem.reference(), EXACT)


def test_ties_everywhere_choose_the_first_cells() -> None:
    problem = Problem(rois=2)
    for value in problem.head.point_head.predictor.parameters():
        value.zero_()
    found = run(problem, problem.masks())
    for step in (1, 2, 3):
        assert torch.equal(found[f"step{step}.indices"], torch.arange(784).expand(2, -1))
    compare(found, problem.reference(), EXACT)


@pytest.mark.parametrize("buffer", ["own1", "coarse2", "coarse3", "bias3", "fine0"])
def test_comparison_notices_a_planted_error(buffer: str) -> None:
    problem = Problem(rois=20)
    masks = problem.masks()
    assert masks.plan == ProjectionPlan(fine=(True,), coarse=True)
    # Not in place: the buffers may be views of the reference's own weights.
    masks.point_head.register_buffer(buffer, masks.point_head.get_buffer(buffer) + 1e-3)
    with pytest.raises(AssertionError):
        compare(run(problem, masks), problem.reference(), EXACT)


def test_comparison_notices_another_class() -> None:
    problem = Problem(rois=3)
    found = run(problem, problem.masks())
    problem.classes = (problem.classes + 1) % 60
    with pytest.raises(AssertionError):
        compare(found, problem.reference(), EXACT)


def exported(problem: Problem, masks: InstanceMasks) -> tuple[onnx.ModelProto, list[str]]:
    features = tuple(problem.features[name] for name in masks.features)
    examples = (problem.boxes, problem.classes, *features)
    names = list(run(problem, masks))
    proto = trace(Flat(masks), examples, ["boxes", "classes", *masks.features], names)
    return attach_bodies(proto), names


def onnx_run(proto: onnx.ModelProto, problem: Problem, names: list[str]) -> dict[str, Tensor]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"boxes": problem.boxes, "classes": problem.classes, **problem.features}
    found = session.run(names, {name: value.numpy() for name, value in feed.items()})
    return {name: torch.from_numpy(np.asarray(v)) for name, v in zip(names, found, strict=True)}


def agree(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """FP32 against FP32: a point of nearly the K-th uncertainty may be another one."""
    mine, theirs = found["mask_logits"], wanted["mask_logits"][:, 0]
    close = (mine - theirs).abs() < 1e-4
    assert float(close.double().mean()) > 0.999
    assert float(((mine > 0) != (theirs > 0)).double().mean()) < 1e-4
    assert float((found["coarse"] - wanted["coarse"]).abs().max()) < 1e-4
    first = "step0.point_logits"
    assert float((found[first] - wanted[first]).abs().max()) < 1e-4
    for step in (1, 2, 3):
        sets = zip(found[f"step{step}.indices"], wanted[f"step{step}.indices"], strict=True)
        for ours, reference in sets:
            assert len(set(ours.tolist()) & set(reference.tolist())) >= 0.995 * 784


@pytest.mark.parametrize(
    ("rois", "at_once", "gathered"), [(1, 20, True), (5, 2, True), (5, 20, False), (20, 10, False)]
)
def test_in_onnx_runtime(rois: int, at_once: int, gathered: bool) -> None:
    """One file serves every content: pictures, boxes off the picture, padding, ties."""
    problem = Problem(rois, dtype=torch.float32)
    proto, names = exported(problem, problem.masks(rois_at_once=at_once, gathered=gathered))
    assert {node.op_type for node in proto.graph.node if node.domain == DOMAIN} == {
        "PointRendSample",
        "PointRendUncertain",
    }
    onnx.checker.check_model(proto)
    agree(onnx_run(proto, problem, names), problem.reference())
    problem.boxes[:, 2:] += 90.0
    problem.boxes[0, :2] -= 33.0
    agree(onnx_run(proto, problem, names), problem.reference())
    problem.boxes[rois // 2 :], problem.classes[rois // 2 :] = 0.0, 0
    found = onnx_run(proto, problem, names)
    assert all(value.isfinite().all() for value in found.values())
    agree(found, problem.reference())
    problem.features["p2"].zero_()
    problem.features["p2"] += 1.0
    agree(onnx_run(proto, problem, names), problem.reference())


def test_agreement_notices_a_planted_error() -> None:
    problem = Problem(2, dtype=torch.float32)
    found, wanted = run(problem, problem.masks()), problem.reference()
    agree(found, wanted)
    found["mask_logits"] = found["mask_logits"] + 0.01
    with pytest.raises(AssertionError):
        agree(found, wanted)


def test_what_is_refused() -> None:
    problem = Problem(2)
    with pytest.raises(DeployError, match="at least 1 RoI"):
        problem.masks(rois=0)
    with pytest.raises(DeployError, match="feature sizes"):
        problem.masks(feature_hw=[(20, 28), (10, 14)])
    with pytest.raises(DeployError, match="2 x 2 cells"):
        problem.masks(feature_hw=[(1, 28)], gathered=True)
    with pytest.raises(DeployError, match="recompute every cell"):
        Problem(2, subdivision_steps=1).masks()


@pytest.mark.parametrize("hw", [(2, 2), (9, 12)])
def test_gathered_rows_are_the_definition(hw: tuple[int, int]) -> None:
    """Inside, across the border, on it, and far outside."""
    torch.manual_seed(0)
    plane = torch.randn(1, 5, *hw, dtype=torch.float64)
    points = torch.rand(3, 200, 2, dtype=torch.float64) * 1.6 - 0.3
    points[0, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1e9, 0.5], [0.5, -1e9]])
    points[1] = (points[1] * 8).round() / 8
    cells, weights = neighbours(points[..., 0] * hw[1], points[..., 1] * hw[0], *hw)
    assert 0 <= int(cells.min()) <= int(cells.max()) < hw[0] * hw[1]
    found = gather(plane[0].flatten(1).t(), cells, weights)
    wanted = point_sample(plane, points.reshape(1, -1, 2))[0].t()
    assert float((found - wanted).abs().max()) < 1e-12
    assert float((found - wanted.roll(1, dims=0)).abs().max()) > 0.1


def test_hats_are_samples_of_unit_planes() -> None:
    torch.manual_seed(0)
    points = torch.rand(2, 300, 2, dtype=torch.float64)
    points[0, :2] = torch.tensor([[0.0, 0.0], [1.0, 0.5]])
    rows, columns = hats(points[..., 1], 7), hats(points[..., 0], 7)
    found = (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten(1, 2)
    planes = torch.eye(49, dtype=torch.float64).reshape(1, 49, 7, 7).expand(2, -1, -1, -1)
    wanted = point_sample(planes, points)
    assert float((found - wanted).abs().max()) < 1e-12
    assert float((found - wanted.roll(1, dims=1)).abs().max()) > 0.1


def work(rois: int, classes: int = 80) -> InstanceWork:
    return InstanceWork(
        fine=((256, 60_800),),
        classes=classes,
        coarse_cells=49,
        width=256,
        hidden_layers=3,
        coarse_in_every_layer=True,
        rois=rois,
        points=4 * 784,
    )


def test_cost_rule() -> None:
    """p2 of 200 x 304 is projected from 25 RoIs on; the coarse logits if classes are many."""
    assert [plan_instance(work(rois)).fine[0] for rois in (10, 24, 25, 100)] == [
        False,
        False,
        True,
        True,
    ]
    # With rows to gather a map is copied or projected.
    assert [plan_instance(work(rois), 1.0).fine[0] for rois in (19, 20)] == [False, True]
    assert plan_instance(work(100)).coarse
    assert not plan_instance(work(100, classes=8)).coarse


def test_flops_by_hand() -> None:
    """769 rows of 49 or 80 columns at 3136 points, and once 49 cells of 80 channels a RoI."""
    columns = 3136 * (2 * 49 * 769 + 8 * 49)
    assert coarse_flops(work(1), projected=True) == columns + 2 * 49 * 80 * 769
    assert coarse_flops(work(3), projected=False) == 3 * 3136 * (2 * 80 * 769 + 8 * 80)
