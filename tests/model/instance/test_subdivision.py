"""Instance subdivision against a plain loop over RoIs and points."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.pointrend import (
    StandardPointHead,
    double,
    sample_in_boxes,
    subdivide_instances,
)
from pointrend_deploy.recipe.instance import InstancePointHeadSpec, subdivision_start


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ((7, 5, 784), (28, 3)),
        ((7, 5, 783), (14, 4)),
        ((7, 5, 195), (7, 5)),
        ((7, 5, 196), (14, 4)),
        ((14, 4, 3136), (56, 2)),
        ((7, 1, 784), (28, -1)),
    ],
)
def test_start(given: tuple[int, int, int], start: tuple[int, int]) -> None:
    assert subdivision_start(*given) == start


def bilinear(plane: Tensor, x: float, y: float) -> float:
    """At (x, y) in cells, cell centres at .5; zero outside."""
    height, width = plane.shape
    total = 0.0
    for row in range(height):
        for column in range(width):
            near = max(0.0, 1 - abs(x - column - 0.5)) * max(0.0, 1 - abs(y - row - 0.5))
            total += near * float(plane[row, column])
    return total


def test_points_in_boxes_are_points_in_the_picture() -> None:
    torch.manual_seed(0)
    fine, wide = torch.randn(1, 2, 6, 8).double(), torch.randn(1, 1, 3, 4).double()
    boxes = torch.tensor([[3.0, 2.0, 20.0, 19.0], [25.0, 15.0, 40.0, 30.0]]).double()
    points = torch.rand(2, 5, 2).double()
    sampled = sample_in_boxes([fine, wide], [4, 8], boxes, points)
    assert sampled.shape == (2, 3, 5)
    for r, box in enumerate(boxes.tolist()):
        for p, (px, py) in enumerate(points[r].tolist()):
            x, y = box[0] + px * (box[2] - box[0]), box[1] + py * (box[3] - box[1])
            expected = [bilinear(fine[0, c], x / 4, y / 4) for c in range(2)]
            expected.append(bilinear(wide[0, 0], x / 8, y / 8))
            assert sampled[r, :, p].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("agnostic", [False, True])
def test_every_roi_alone_a_point_at_a_time(agnostic: bool) -> None:
    """Small enough to follow: a first grid of 4, two steps of 12 points, 3 classes."""
    torch.manual_seed(3)
    spec = InstancePointHeadSpec(fc_dim=6, class_agnostic=agnostic)
    head = StandardPointHead(spec, 5, 3, num_outputs=1 if agnostic else None).double()
    feature, coarse = torch.randn(1, 5, 10, 12).double(), torch.randn(2, 3, 2, 2).double() * 3
    boxes = torch.tensor([[4.0, 4.0, 31.0, 25.0], [0.0, 0.0, 48.0, 40.0]]).double()
    classes = torch.tensor([2, 0])
    with torch.no_grad():
        stages = subdivide_instances(coarse, boxes, classes, [feature], [4], head, (4, 2), 12)
    assert stages["mask_logits"].shape == (2, 1, 16, 16)
    for r, box in enumerate(boxes.tolist()):
        row = 0 if agnostic else int(classes[r])

        def at(index: int, side: int, r: int = r, box: list[float] = box, row: int = row) -> float:
            x, y = (index % side + 0.5) / side, (index // side + 0.5) / side
            u, v = box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1])
            fine = [bilinear(plane, u / 4, v / 4) for plane in feature[0]]
            rough = [bilinear(plane, x * 2, y * 2) for plane in coarse[r]]
            with torch.no_grad():
                logits = head(
                    torch.tensor([fine], dtype=torch.float64)[..., None],
                    torch.tensor([rough], dtype=torch.float64)[..., None],
                )
            return float(logits[0, row, 0])

        grid = torch.tensor([at(k, 4) for k in range(16)], dtype=torch.float64)
        torch.testing.assert_close(stages["step0.point_logits"][r, 0], grid, atol=1e-10, rtol=0)
        plane = grid.view(1, 1, 4, 4)
        for step, side in ((1, 8), (2, 16)):
            plane = double(plane)
            order = sorted(range(side * side), key=lambda k: (abs(float(plane.flatten()[k])), k))
            chosen = sorted(order[:12])
            assert stages[f"step{step}.indices"][r].tolist() == chosen
            for k in chosen:
                plane.view(-1)[k] = at(k, side)
        torch.testing.assert_close(stages["mask_logits"][r], plane[0], atol=1e-10, rtol=0)
