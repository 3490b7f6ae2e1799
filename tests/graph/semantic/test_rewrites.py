"""The traceable modules are the reference's function: float64, 1e-9, away from ties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend_deploy.graph.cost import (
    PointWork,
    ProjectionPlan,
    part_flops,
    plan_projection,
)
from pointrend_deploy.graph.semantic.point_layers import (
    CellPointHead,
    ProjectedPointHead,
    SampledPointHead,
)
from pointrend_deploy.graph.semantic.traceable import Subdivision, grid_points
from pointrend_deploy.model.pointrend import (
    StandardPointHead,
    cell_centres,
    point_sample,
    subdivide,
)
from tests.fixtures.semantic_models import point_head

CLASSES, CHANNELS = 5, 6
PLANS = [
    ProjectionPlan(fine=(a, b), coarse=c)
    for a in (False, True)
    for b in (False, True)
    for c in (False, True)
]


def problem(every_layer: bool) -> tuple[StandardPointHead, Tensor, list[Tensor]]:
    torch.manual_seed(3)
    spec = point_head(coarse_in_every_layer=every_layer, in_features=("p2", "p3"))
    head = StandardPointHead(spec, 2 * CHANNELS, CLASSES).double().requires_grad_(False)
    coarse = torch.randn(2, CLASSES, 8, 12, dtype=torch.float64)
    fine = [torch.randn(2, CHANNELS, 8 // s, 12 // s, dtype=torch.float64) for s in (1, 2)]
    return head, coarse, fine


@pytest.mark.parametrize("every_layer", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_projection_before_sampling(every_layer: bool, plan: ProjectionPlan) -> None:
    head, coarse, fine = problem(every_layer)
    points = torch.rand(2, 40, 2, dtype=torch.float64)
    wanted = head(
        torch.cat([point_sample(each, points) for each in fine], dim=1),
        point_sample(coarse, points),
    )
    ours: SampledPointHead | ProjectedPointHead = SampledPointHead(head)
    if plan.any:
        ours = ProjectedPointHead(head, [CHANNELS, CHANNELS], plan)
    found = ours(ours.prepare(fine, coarse), points)
    assert (found - wanted).abs().max() < 1e-9


def of_one_map(every_layer: bool) -> tuple[StandardPointHead, Tensor, list[Tensor]]:
    """The same problem with the first fine map alone."""
    _, coarse, fine = problem(every_layer)
    spec = point_head(coarse_in_every_layer=every_layer)
    head = StandardPointHead(spec, CHANNELS, CLASSES).double().requires_grad_(False)
    return head, coarse, fine[:1]


@pytest.mark.parametrize("every_layer", [False, True])
@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("num_points", [37, 385, 5000])
def test_subdivision_of_an_engine(num_points: int, labels_only: bool, every_layer: bool) -> None:
    """One op samples both maps at cells, where the head allows; the function is the same."""
    for head, coarse, fine in (of_one_map(every_layer), problem(every_layer)):
        wanted = subdivide(coarse, fine, head, 2, num_points)
        channels = [CHANNELS] * len(fine)
        ours = Subdivision(head, 2, num_points, channels, None, labels_only)
        one_op = len(fine) == 1 and not every_layer
        assert isinstance(ours.head, CellPointHead if one_op else SampledPointHead)
        found = ours(coarse, fine)
        assert torch.equal(found["labels"].long(), wanted["logits"].argmax(dim=1))
        if not labels_only:
            assert (found["logits"] - wanted["logits"]).abs().max() < 1e-9
        other = Subdivision(head, 2, num_points, channels, None, labels_only)
        moved = other(coarse.flip(3), fine)["step0.point_logits"]
        assert (moved - found["step0.point_logits"]).abs().max() > 1e-3


@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("num_points", [1, 37, 384, 385, 5000])
@pytest.mark.parametrize("every_layer", [False, True])
def test_subdivision(labels_only: bool, num_points: int, every_layer: bool) -> None:
    """The first step has 16 x 24 = 384 cells: K below, at and above H*W."""
    head, coarse, fine = problem(every_layer)
    wanted = subdivide(coarse, fine, head, 2, num_points)
    for plan in (PLANS[0], PLANS[-1]):
        ours = Subdivision(head, 2, num_points, [CHANNELS] * 2, plan, labels_only)
        found = ours(coarse, fine)
        assert torch.equal(found["labels"].long(), wanted["logits"].argmax(dim=1))
        if not labels_only:
            assert (found["logits"] - wanted["logits"]).abs().max() < 1e-9
        for step in range(2):
            order = found[f"step{step}.indices"].argsort(dim=1)
            indices = found[f"step{step}.indices"].gather(1, order)
            assert torch.equal(indices, wanted[f"step{step}.indices"])
            where = order.unsqueeze(1).expand(-1, CLASSES, -1)
            logits = found[f"step{step}.point_logits"].gather(2, where)
            assert (logits - wanted[f"step{step}.point_logits"]).abs().max() < 1e-9


def test_subdivision_with_tied_logits_everywhere() -> None:
    """The two best tie at every cell: the first cells are chosen, labels are the reference's."""
    head, coarse, fine = problem(False)
    coarse[:, 3] = coarse[:, 1] = coarse.amax(dim=1) + 1.0
    wanted = subdivide(coarse, fine, head, 2, 100)
    ours = Subdivision(head, 2, 100, [CHANNELS] * 2, PLANS[0], labels_only=True)
    found = ours(coarse, fine)
    assert torch.equal(found["labels"].long(), wanted["logits"].argmax(dim=1))
    assert torch.equal(found["step0.indices"][0], torch.arange(100))


def test_comparison_notices_a_planted_error() -> None:
    head, coarse, fine = problem(False)
    ours = ProjectedPointHead(head, [CHANNELS] * 2, PLANS[-1])
    points = torch.rand(2, 40, 2, dtype=torch.float64)
    before = ours(ours.prepare(fine, coarse), points)
    ours.get_buffer("fine0_weight")[0, 0] += 1e-3
    assert (ours(ours.prepare(fine, coarse), points) - before).abs().max() > 1e-9


def test_grid_points_are_the_cell_centres() -> None:
    indices = torch.arange(720 * 1280).unsqueeze(0)
    assert torch.equal(
        grid_points(indices, 720, 1280, torch.float32),
        cell_centres(indices, 720, 1280, torch.float32),
    )


def work(points: int, cells: int, every_layer: bool = False) -> PointWork:
    return PointWork(
        fine=((256, cells),),
        coarse=(19, cells),
        width=256,
        hidden_layers=3,
        coarse_in_every_layer=every_layer,
        points=points,
    )


def point_head_flops(work: PointWork, plan: ProjectionPlan) -> int:
    """Count FLOPs of sampling and of the whole point head over all points of one picture."""
    classes, cells = work.coarse
    total = 0
    for (channels, size), projected in zip(work.fine, plan.fine, strict=True):
        total += part_flops(channels, work.width, size, work.points, projected)
    hidden = 2 * work.points * work.width * work.width * (work.hidden_layers - 1)
    total += hidden + 2 * work.points * work.width * classes
    width = work.width * (work.hidden_layers if work.coarse_in_every_layer else 1)
    width += classes if work.coarse_in_every_layer else 0
    return total + part_flops(classes, width, cells, work.points, plan.coarse)


def test_cost_rule() -> None:
    """Cityscapes keeps sampling first; a small map with many points projects first."""
    assert not plan_projection(work(2 * 8192, 256 * 512)).any
    assert plan_projection(work(313_600, 60_800)).fine == (True,)
    assert not plan_projection(work(100, 100)).fine[0]
    assert plan_projection(work(313_600, 60_800)).coarse
    assert not plan_projection(work(70_000, 60_800)).coarse


@pytest.mark.parametrize("every_layer", [False, True])
@pytest.mark.parametrize("points", [50, 5_000, 500_000])
@pytest.mark.parametrize("cells", [49, 4_000, 131_072])
def test_the_plan_is_the_cheapest(every_layer: bool, points: int, cells: int) -> None:
    size = work(points, cells, every_layer)
    chosen = point_head_flops(size, plan_projection(size))
    plans = [ProjectionPlan((a,), b) for a in (False, True) for b in (False, True)]
    assert chosen == min(point_head_flops(size, plan) for plan in plans)


def test_flops_by_hand() -> None:
    """256 -> 256 at 10 points: 2 * 10 * 256 * 256, and 8 * 10 * 256 for sampling."""
    assert part_flops(256, 256, 77, 10, projected=False) == 1_310_720 + 20_480
    assert part_flops(256, 128, 77, 10, projected=True) == 2 * 77 * 256 * 128 + 8 * 10 * 128
