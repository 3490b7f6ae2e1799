"""The instance ops run eagerly: the reference's pooling, and NMS as its definition says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.ops import pool, suppress
from pointrend_deploy.model.instance.boxes import pairwise_iou
from pointrend_deploy.model.instance.roi_align import pool_boxes


def boxes(*lead: int, scale: float = 100.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*lead, 2, generator=generator) * scale
    size = torch.exp(torch.rand(*lead, 2, generator=generator) * 5.0)
    return torch.cat((corner - size / 2, corner + size / 2), dim=-1)


def greedy(box: Tensor, score: Tensor, k: int, iou: float, least: float) -> list[int]:
    """The definition, one candidate after another: box (G, L, 4), score (G, L)."""
    flat = score.flatten()
    overlaps = pairwise_iou(box.reshape(-1, 4))
    length = score.shape[1]
    kept: list[int] = []
    for at in sorted(range(len(flat)), key=lambda i: (-float(flat[i]), i)):
        rivals = [other for other in kept if other // length == at // length]
        if flat[at] > least and not any(overlaps[at, other] > iou for other in rivals):
            kept.append(at)
    return kept[:k]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "iou", "least"), [(7, 0.3, 0.1), (50, 0.7, -float("inf"))])
def test_suppression_is_the_definition(seed: int, k: int, iou: float, least: float) -> None:
    """Ties, empty boxes, -inf and two pictures."""
    box = boxes(2, 3, 20, seed=seed).round()
    score = (torch.rand(2, 3, 20) * 8).round() / 8
    score[0, 1, 4], box[0, 2, 3] = -float("inf"), 0.0
    indices, count = suppress(box, score, k, iou, least)
    assert indices.shape == (2, k) and count.shape == (2,)
    for n in range(2):
        kept = greedy(box[n], score[n], k, iou, least)
        assert indices[n, : int(count[n])].tolist() == kept
        assert not indices[n, len(kept) :].any()


def test_nan_is_no_candidate() -> None:
    score = torch.tensor([[[0.5, float("nan"), 0.9]]])
    indices, count = suppress(boxes(1, 1, 3), score, 3, 1.0, -float("inf"))
    assert indices.tolist() == [[2, 0, 0]] and count.tolist() == [2]


def test_pooling_is_the_reference_s() -> None:
    maps = [torch.randn(2, 3, 24 >> i, 32 >> i) for i in range(3)]
    box = boxes(2, 9)
    found = pool(box, maps, 2, 5)
    wanted = [pool_boxes([m[n : n + 1] for m in maps], range(2, 5), box[n], 5) for n in range(2)]
    assert torch.equal(found, torch.cat(wanted))


@pytest.mark.parametrize("k", [0, 13, 3841])
def test_numbers_no_node_can_keep(k: int) -> None:
    with pytest.raises(DeployError, match=f"not {k}"):
        suppress(boxes(1, 3, 4), torch.zeros(1, 3, 4), k, 0.5, 0.0)


@pytest.mark.parametrize("levels", [0, 5])
def test_numbers_of_levels_no_node_takes(levels: int) -> None:
    with pytest.raises(DeployError, match=f"not {levels}"):
        pool(boxes(1, 1), [torch.zeros(1, 1, 4, 4)] * levels, 2, 7)
