"""Pasting against a loop over every pixel of the picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.boxes import paste_masks
from tests.model.instance.by_hand import bilinear


def by_loops(mask: Tensor, box: list[float], image_hw: tuple[int, int]) -> Tensor:
    """Bilinear samples at all pixel centres, zero outside the mask, at least one half."""
    side = len(mask)

    def cell(i: int, j: int) -> float:
        return float(mask[i, j]) if 0 <= i < side and 0 <= j < side else 0.0

    covered = torch.zeros(image_hw, dtype=torch.bool)
    for row in range(image_hw[0]):
        for column in range(image_hw[1]):
            y = (row + 0.5 - box[1]) / (box[3] - box[1]) * side - 0.5
            x = (column + 0.5 - box[0]) / (box[2] - box[0]) * side - 0.5
            covered[row, column] = bilinear(cell, y, x) >= 0.5
    return covered


BOXES = {
    "inside": [5.3, 4.1, 33.8, 21.7],
    "whole picture": [0.0, 0.0, 40.0, 30.0],
    "corner": [31.2, 22.9, 40.0, 30.0],
    "one pixel": [7.0, 8.0, 8.0, 9.0],
    "less than a pixel": [7.3, 8.3, 7.7, 8.7],
    "between pixel centres": [7.55, 8.55, 8.45, 9.45],
    "far larger than the picture": [-300.0, -200.0, 400.0, 300.0],
    "outside": [60.0, 60.0, 90.0, 90.0],
    "left of the picture": [-30.0, 3.0, -10.0, 20.0],
}


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("side", [7, 28])
def test_equals_a_sample_at_every_pixel(name: str, side: int) -> None:
    torch.manual_seed(0)
    mask = torch.rand(side, side, dtype=torch.float64)
    box = BOXES[name]
    pasted = paste_masks(mask[None], torch.tensor([box], dtype=torch.float64), (30, 40), 0.5)
    assert torch.equal(pasted[0], by_loops(mask, box, (30, 40)))


def test_a_full_mask_covers_the_pixels_with_their_centre_inside() -> None:
    box = torch.tensor([[2.5, 3.0, 6.4, 5.6]], dtype=torch.float64)
    pasted = paste_masks(torch.ones(1, 224, 224, dtype=torch.float64), box, (10, 10), 0.5)
    assert pasted[0].nonzero().amin(0).tolist() == [3, 2]
    assert pasted[0].nonzero().amax(0).tolist() == [5, 5]
    assert pasted.sum() == 3 * 4


def test_the_comparison_sees_a_shift_of_half_a_pixel() -> None:
    torch.manual_seed(0)
    mask = torch.rand(7, 7, dtype=torch.float64)
    box = BOXES["inside"]
    moved = torch.tensor([box], dtype=torch.float64) + 0.5
    assert not torch.equal(
        paste_masks(mask[None], moved, (30, 40), 0.5)[0], by_loops(mask, box, (30, 40))
    )


def test_no_masks() -> None:
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6), 0.5).shape == (0, 5, 6)
