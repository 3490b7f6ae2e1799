"""RoIAlign against its definition, a sample at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.roi_align import levels_of, pool_boxes, roi_align
from tests.model.instance.by_hand import bilinear


def sample(plane: Tensor, y: float, x: float) -> float:
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0

    def cell(row: int, column: int) -> float:
        return float(plane[min(row, height - 1), min(column, width - 1)])

    return bilinear(cell, min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0))


def by_loops(feature: Tensor, boxes: Tensor, spatial_scale: float, side: int) -> Tensor:
    pooled = torch.zeros(len(boxes), feature.shape[1], side, side, dtype=feature.dtype)
    for r, box in enumerate(boxes.tolist()):
        x1, y1, x2, y2 = (v * spatial_scale - 0.5 for v in box)
        rows, columns = math.ceil((y2 - y1) / side), math.ceil((x2 - x1) / side)
        for channel in range(feature.shape[1]):
            for i in range(side):
                for j in range(side):
                    total = 0.0
                    for u in range(rows):
                        for v in range(columns):
                            y = y1 + (i + (u + 0.5) / rows) * (y2 - y1) / side
                            x = x1 + (j + (v + 0.5) / columns) * (x2 - x1) / side
                            total += sample(feature[0, channel], y, x)
                    pooled[r, channel, i, j] = total / max(rows * columns, 1)
    return pooled


BOXES = {
    "inside": [13.7, 21.2, 61.9, 50.4],
    "all of it": [0.0, 0.0, 96.0, 80.0],
    "larger than the picture": [-40.0, -30.0, 140.0, 120.0],
    "half outside": [80.0, 60.0, 150.0, 130.0],
    "fully outside": [200.0, 200.0, 260.0, 280.0],
    "one pixel": [40.0, 30.0, 41.0, 31.0],
    "one pixel in the corner": [95.0, 79.0, 96.0, 80.0],
    "a hundredth of a pixel": [40.0, 30.0, 40.01, 30.01],
    "long and flat": [0.0, 33.0, 96.0, 34.5],
    "thin and high": [50.1, 0.0, 50.9, 80.0],
}


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("side", [3, 7])
def test_equals_the_definition(name: str, side: int) -> None:
    torch.manual_seed(1)
    feature = torch.randn(1, 2, 20, 24, dtype=torch.float64)
    boxes = torch.tensor([BOXES[name]], dtype=torch.float64)
    expected = by_loops(feature, boxes, 0.25, side)
    ours = roi_align(feature, boxes, 0.25, side)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_many_boxes_at_once_equal_one_at_a_time() -> None:
    torch.manual_seed(2)
    feature = torch.randn(1, 5, 20, 24)
    boxes = torch.tensor(list(BOXES.values()))
    alone = torch.cat([roi_align(feature, box[None], 0.25, 7) for box in boxes])
    assert torch.equal(roi_align(feature, boxes, 0.25, 7), alone)


def test_the_comparison_sees_pooling_that_is_not_aligned() -> None:
    torch.manual_seed(1)
    feature = torch.randn(1, 2, 20, 24, dtype=torch.float64)
    boxes = torch.tensor([BOXES["inside"]], dtype=torch.float64)
    half_a_cell = roi_align(feature, boxes + 2.0, 0.25, 7)
    assert (half_a_cell - by_loops(feature, boxes, 0.25, 7)).abs().max() > 1e-2


def test_an_empty_box_pools_zeros() -> None:
    boxes = torch.tensor([[5.0, 5.0, 5.0, 9.0], [5.0, 5.0, 9.0, 5.0], [5.0, 5.0, 5.0, 5.0]])
    assert not roi_align(torch.ones(1, 3, 8, 8), boxes, 0.25, 7).any()


def test_no_boxes() -> None:
    features = [torch.ones(1, 3, 8, 8), torch.ones(1, 3, 4, 4)]
    assert pool_boxes(features, (2, 3), torch.zeros(0, 4), 7).shape == (0, 3, 7, 7)


def test_a_constant_map_pools_to_its_constant() -> None:
    boxes = torch.tensor([BOXES["inside"], BOXES["one pixel"], BOXES["long and flat"]])
    pooled = roi_align(torch.full((1, 1, 20, 24), 3.0), boxes, 0.25, 7)
    torch.testing.assert_close(pooled, torch.full_like(pooled, 3.0))


@pytest.mark.parametrize(
    ("side", "level"), [(1, 2), (111.9, 2), (112, 3), (223.9, 3), (224, 4), (448, 5), (5000, 5)]
)
def test_levels(side: float, level: int) -> None:
    box = torch.tensor([[10.0, 10.0, 10.0 + side, 10.0 + side]], dtype=torch.float64)
    assert levels_of(box, 2, 5).item() == level


def test_an_empty_box_is_pooled_from_the_finest_level() -> None:
    assert levels_of(torch.tensor([[3.0, 3.0, 3.0, 8.0]]), 2, 5).item() == 2


def test_every_box_is_pooled_from_its_own_level() -> None:
    features = [torch.full((1, 1, 256 >> k, 256 >> k), float(k)) for k in range(4)]
    boxes = torch.tensor([[0.0, 0, 50, 50], [0, 0, 900, 900], [0, 0, 130, 130], [0, 0, 300, 300]])
    pooled = pool_boxes(features, (2, 3, 4, 5), boxes, 7)
    assert pooled.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 3, 1, 2])
