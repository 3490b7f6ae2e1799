"""The running maxima equal upsampling, arg-max and TopK over classes; ties and strips included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.graph.semantic.two_best import labels_and_uncertainty, strip_rows, uncertainty
from pointrend_deploy.model import pointrend as point_ops


def reference(logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    up = F.interpolate(logits, scale_factor=float(scale), mode="bilinear", align_corners=False)
    return up.argmax(dim=1), point_ops.uncertainty(up)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 19, 54])
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("budget", [1, 20_000, 2**24])
def test_equals_reference(classes: int, scale: int, budget: int) -> None:
    torch.manual_seed(classes)
    logits = torch.randn(2, classes, 9, 13, dtype=torch.float64)
    labels, unsure = labels_and_uncertainty(logits, scale, budget)
    wanted, wanted_unsure = reference(logits, scale)
    assert torch.equal(labels.long(), wanted)
    assert (unsure - wanted_unsure).abs().max() < 1e-9
    assert torch.equal(uncertainty(logits, scale, budget), unsure)


def test_strips_change_no_bit_in_float32() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 5, 31, 17)
    whole = labels_and_uncertainty(logits, 2, 2**30)
    strips = labels_and_uncertainty(logits, 2, 1)
    assert all(torch.equal(a, b) for a, b in zip(whole, strips, strict=True))


@pytest.mark.parametrize("classes", [2, 3, 7, 19])
def test_every_pixel_tied(classes: int) -> None:
    """All logits equal: class 0 everywhere and no uncertainty above or below 0."""
    labels, unsure = labels_and_uncertainty(torch.full((1, classes, 6, 6), 0.3), 2)
    assert labels.abs().max() == 0
    assert unsure.abs().max() == 0


@pytest.mark.parametrize("pair", [(0, 1), (3, 11), (9, 10), (17, 18), (4, 18)])
def test_two_best_tied_gives_the_first(pair: tuple[int, int]) -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, 19, 8, 8)
    logits[:, pair[0]] += 10
    logits[:, pair[1]] = logits[:, pair[0]]
    labels, unsure = labels_and_uncertainty(logits, 2)
    assert torch.equal(labels, torch.full_like(labels, pair[0]))
    assert torch.equal(unsure, torch.zeros_like(unsure))


def test_comparison_notices_a_planted_error() -> None:
    logits = torch.randn(1, 19, 8, 8, dtype=torch.float64)
    wanted, wanted_unsure = reference(logits, 2)
    logits[0, 4, 3, 3] += 5
    labels, unsure = labels_and_uncertainty(logits, 2)
    assert not torch.equal(labels.long(), wanted)
    assert (unsure - wanted_unsure).abs().max() > 1e-9


def test_strip_rows_follow_the_budget() -> None:
    assert strip_rows(2048, 2, 2**24) * 2 >= strip_rows(2048, 2, 2**25) - 1
    assert strip_rows(10**9, 2, 1) == 2
