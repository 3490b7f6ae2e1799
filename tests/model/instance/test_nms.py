"""NMS against a plain greedy loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.boxes import by_score, grouped_nms


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared) if areas - shared else 0.0


def greedy(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    rows, labels = boxes.tolist(), groups.tolist()
    kept: list[int] = []
    for i in sorted(range(len(rows)), key=lambda k: (-scores[k].item(), k)):
        rivals = [k for k in kept if labels[k] == labels[i]]
        if all(iou(rows[k], rows[i]) <= threshold for k in rivals):
            kept.append(i)
    return kept


def crowd(seed: int, count: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40
    boxes = torch.cat((corner, corner + size), dim=1)
    scores = (torch.rand(count, generator=generator) * 20).round() / 20  # many ties
    return boxes, scores, torch.randint(groups, (count,), generator=generator)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_greedy_loop(seed: int, groups: int, threshold: float) -> None:
    boxes, scores, labels = crowd(seed, 150, groups)
    expected = greedy(boxes, scores, labels, threshold)
    assert grouped_nms(boxes, scores, labels, threshold).tolist() == expected


@pytest.mark.parametrize("limit", [1, 2, 9, 30, 150])
@pytest.mark.parametrize("threshold", [0.02, 0.5])
def test_the_best_of_what_is_left(limit: int, threshold: float) -> None:
    """With a limit, the first of all that are kept; at 0.02 few are, far below the limit."""
    boxes, scores, labels = crowd(3, 150, 3)
    expected = greedy(boxes, scores, labels, threshold)
    assert grouped_nms(boxes, scores, labels, threshold, limit).tolist() == expected[:limit]


def test_the_comparison_sees_another_threshold() -> None:
    boxes, scores, labels = crowd(0, 150, 1)
    assert grouped_nms(boxes, scores, labels, 0.5).tolist() != greedy(boxes, scores, labels, 0.45)


def test_a_long_chain_of_suppressions() -> None:
    """Each box overlaps its neighbours only: the greedy pass keeps every second one."""
    left = torch.arange(60, dtype=torch.float64) * 4
    boxes = torch.stack((left, torch.zeros(60), left + 10, torch.full((60,), 10.0)), dim=1)
    scores = torch.linspace(1, 0.1, 60)
    kept = grouped_nms(boxes, scores, torch.zeros(60, dtype=torch.int64), 0.4)
    assert kept.tolist() == list(range(0, 60, 2))


def test_an_iou_equal_to_the_threshold_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 1], [0.0, 0, 1, 1]])  # IoU exactly 1/2
    labels = torch.zeros(2, dtype=torch.int64)
    assert grouped_nms(boxes, torch.tensor([0.9, 0.8]), labels, 0.5).tolist() == [0, 1]
    assert grouped_nms(boxes, torch.tensor([0.9, 0.8]), labels, 0.499).tolist() == [0]


def test_of_equal_scores_the_lower_index_wins() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    labels = torch.zeros(3, dtype=torch.int64)
    assert grouped_nms(boxes, torch.full((3,), 0.5), labels, 0.5).tolist() == [0]
    assert by_score(torch.tensor([1.0, 2.0, 2.0, 1.0])).tolist() == [1, 2, 0, 3]


def test_groups_do_not_suppress_one_another() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    kept = grouped_nms(boxes, torch.tensor([0.1, 0.3, 0.2]), torch.tensor([4, 7, 4]), 0.5)
    assert kept.tolist() == [1, 2]


def test_empty_boxes_suppress_nothing_and_no_boxes_are_none() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [5.0, 5, 5, 5], [0.0, 0, 10, 10]])
    labels = torch.zeros(3, dtype=torch.int64)
    assert grouped_nms(boxes, torch.tensor([3.0, 2, 1]), labels, 0.5).tolist() == [0, 1, 2]
    assert grouped_nms(boxes[:0], torch.zeros(0), labels[:0], 0.5).shape == (0,)
