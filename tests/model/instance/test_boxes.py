"""Anchors, deltas, proposals and detections on values worked out by hand or by loops."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.box_head import detect
from pointrend_deploy.model.instance.boxes import apply_deltas, clip, nonempty, pairwise_iou, scale
from pointrend_deploy.model.instance.rpn import RPN, grid_anchors
from pointrend_deploy.recipe.instance import BoxHeadSpec, RPNSpec, cell_anchors

UNIT = (1.0, 1.0, 1.0, 1.0)


def test_cell_anchors() -> None:
    wide, square, high = cell_anchors([32.0], [0.5, 1.0, 2.0])
    assert square == [-16.0, -16.0, 16.0, 16.0]
    assert wide == pytest.approx([-22.627417, -11.313708, 22.627417, 11.313708])
    assert high == pytest.approx([-11.313708, -22.627417, 11.313708, 22.627417])
    assert len(cell_anchors([32.0, 64.0], [0.5, 1.0, 2.0])) == 6


def test_grid_anchors_run_over_columns_first_and_anchors_innermost() -> None:
    anchors = grid_anchors([8.0], [1.0, 4.0], (2, 3), 16, 0.0, torch.zeros(()))
    assert anchors.shape == (2 * 3 * 2, 4)
    assert anchors[0].tolist() == [-4, -4, 4, 4]
    assert anchors[1].tolist() == [-2, -8, 2, 8]
    assert anchors[2].tolist() == [12, -4, 20, 4]
    assert anchors[6].tolist() == [-4, 12, 4, 20]
    moved = grid_anchors([8.0], [1.0, 4.0], (2, 3), 16, 0.5, torch.zeros(()))
    assert torch.equal(moved, anchors + 8)


def test_deltas() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert apply_deltas(torch.zeros(1, 4), boxes, UNIT).tolist() == [[[10, 20, 30, 60]]]
    moved = apply_deltas(torch.tensor([[1.0, -1.0, 0.0, math.log(2.0)]]), boxes, (10, 10, 5, 1))
    expected = torch.tensor([[[12.0, -4.0, 32.0, 76.0]]])
    torch.testing.assert_close(moved, expected)
    two = apply_deltas(torch.tensor([[0.0, 0, 0, 0, 1, 0, 0, 0]]), boxes, UNIT)
    assert two.tolist() == [[[10, 20, 30, 60], [30, 20, 50, 60]]]


def test_a_box_grows_by_at_most_1000_sixteenths() -> None:
    grown = apply_deltas(torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([[0.0, 0, 16, 16]]), UNIT)
    assert grown[0, 0, 2:] - grown[0, 0, :2] == pytest.approx([1000, 1000], rel=1e-5)


def test_clip_scale_and_empty() -> None:
    boxes = torch.tensor([[-5.0, 3, 50, 70], [200, 3, 210, 9], [1, 1, 2, 2]])
    clipped = clip(boxes, (60, 40))
    assert clipped.tolist() == [[0, 3, 40, 60], [40, 3, 40, 9], [1, 1, 2, 2]]
    assert nonempty(clipped).tolist() == [True, False, True]
    assert scale(boxes[2:], (60, 40), (120, 60)).tolist() == [[1.5, 2, 3, 4]]
    assert pairwise_iou(boxes[2:]).item() == 1


def proposals_of(logits: Tensor, image_hw: tuple[int, int], **changed: object) -> list[int]:
    """Which anchors become proposals where every delta is 0, by their index."""
    spec = RPNSpec(
        in_features=("p2",), anchor_sizes=((8.0,),), aspect_ratios=(1.0,), anchor_offset=0.5
    )
    rpn = RPN(msgspec.structs.replace(spec, **changed), channels=2)
    feature = torch.zeros(1, 2, 4, 4)

    def head(_: Tensor) -> tuple[Tensor, Tensor]:
        return logits[None], torch.zeros(1, 16, 4)

    rpn.rpn_head.forward = head  # type: ignore[method-assign]
    boxes, scores = rpn({"p2": feature}, image_hw)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    anchors = clip(rpn.anchors({"p2": feature})[0], image_hw)
    return [int((anchors == box).all(dim=1).nonzero()[0]) for box in boxes]


def test_proposals_are_the_best_after_nms() -> None:
    logits = torch.arange(16.0)
    assert proposals_of(logits, (16, 16)) == list(range(15, -1, -1))  # neighbours' IoU is 1/3
    thinned = proposals_of(logits, (16, 16), nms_threshold=0.3)
    assert thinned == [15, 13, 10, 8, 7, 5, 2, 0]
    assert proposals_of(logits, (16, 16), post_nms_topk=3) == [15, 14, 13]
    assert proposals_of(logits, (16, 16), pre_nms_topk=2) == [15, 14]


def test_proposals_that_are_empty_or_not_finite_are_dropped() -> None:
    logits = torch.arange(16.0)
    logits[15], logits[14] = math.nan, math.inf
    inside = proposals_of(logits, (16, 4))  # anchors of the last two columns lie beyond the edge
    assert set(inside) == {0, 1, 4, 5, 8, 9, 12, 13}


def detections(
    probabilities: list[list[float]], boxes: list[list[float]], **changed: object
) -> list[tuple[int, int, float]]:
    """(proposal, class, score) of detections where every delta is 0."""
    spec = msgspec.structs.replace(BoxHeadSpec(), **changed)
    logits = torch.tensor(probabilities, dtype=torch.float64).log()
    width = 1 if spec.class_agnostic else logits.shape[1] - 1
    deltas = torch.zeros(len(boxes), 4 * width, dtype=torch.float64)
    found = detect(torch.tensor(boxes, dtype=torch.float64), logits, deltas, (100, 100), spec)
    rows = zip(found.proposals.tolist(), found.classes.tolist(), found.scores.tolist(), strict=True)
    return [(p, c, round(s, 6)) for p, c, s in rows]


APART = [[0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10]]


@pytest.mark.parametrize("agnostic", [False, True])
def test_detections(agnostic: bool) -> None:
    found = detections(
        [[0.7, 0.2, 0.1], [0.04, 0.9, 0.06], [0.01, 0.01, 0.98]], APART, class_agnostic=agnostic
    )
    assert found == [(1, 1, 0.9), (0, 0, 0.7), (0, 1, 0.2)]


def sigmoid_by_hand(
    logits: Tensor, deltas: Tensor, proposals: Tensor, spec: BoxHeadSpec
) -> list[tuple[int, int, float]]:
    """(proposal, class, score) with each class judged alone, one candidate at a time.

    detectron2 fast_rcnn.py with USE_SIGMOID_CE: the sigmoid of every column, the last one dropped.
    """
    candidates = []
    for p, row in enumerate(logits.tolist()):
        for c, logit in enumerate(row[:-1]):
            score = 1.0 / (1.0 + math.exp(-logit))
            if score > spec.score_threshold:
                candidates.append((score, p, c))
    kept: list[tuple[int, int, float]] = []
    moved = apply_deltas(deltas, proposals, spec.box_weights)
    boxes = {(p, c): clip(moved[p, c : c + 1], (100, 100)) for _, p, c in candidates}
    for score, p, c in sorted(candidates, reverse=True):
        rivals = [boxes[q, d] for q, d, _ in kept if d == c]
        overlaps = [float(pairwise_iou(torch.cat((box, boxes[p, c])))[0, 1]) for box in rivals]
        if all(overlap <= spec.nms_threshold for overlap in overlaps):
            kept.append((p, c, round(score, 6)))
    return kept[: spec.detections]


@pytest.mark.parametrize("limit", [7, 60])
def test_sigmoid_scores(limit: int) -> None:
    """Every class has its own score: 12 proposals give more detections than proposals."""
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(12, 6, generator=generator, dtype=torch.float64)
    logits[3, 5] = 50.0  # background, which takes nothing from the classes
    corner = 60 * torch.rand(12, 2, generator=generator, dtype=torch.float64)
    size = 10 + 40 * torch.rand(12, 2, generator=generator, dtype=torch.float64)
    proposals = torch.cat((corner, corner + size), dim=1)
    deltas = torch.randn(12, 20, generator=generator, dtype=torch.float64)
    spec = BoxHeadSpec(class_scores="sigmoid", score_threshold=0.2, detections=limit)
    found = detect(proposals, logits, deltas, (100, 100), spec)
    rows = zip(found.proposals.tolist(), found.classes.tolist(), found.scores.tolist(), strict=True)
    wanted = sigmoid_by_hand(logits, deltas, proposals, spec)
    assert [(p, c, round(s, 6)) for p, c, s in rows] == wanted
    assert len(wanted) == limit if limit == 7 else len(wanted) > 12
    assert any(p == 3 for p, _, _ in wanted) or limit == 7
    softmax = msgspec.structs.replace(spec, class_scores="softmax")
    assert found.scores.sum() != detect(proposals, logits, deltas, (100, 100), softmax).scores.sum()


def test_a_score_must_be_above_the_threshold() -> None:
    spec = BoxHeadSpec(score_threshold=0.25)
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0]])  # a quarter each, exactly
    found = detect(torch.tensor(APART[:1]), logits, torch.zeros(1, 12), (100, 100), spec)
    assert found.boxes.shape == (0, 4)
    spec = BoxHeadSpec(score_threshold=0.2499)
    found = detect(torch.tensor(APART[:1]), logits, torch.zeros(1, 12), (100, 100), spec)
    assert found.classes.tolist() == [0, 1, 2]


def test_nms_is_within_a_class_and_the_best_are_kept() -> None:
    same_place = [APART[0]] * 3
    scores = [[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]
    assert detections(scores, same_place) == [(2, 1, 0.8), (1, 0, 0.6)]
    assert detections(scores, same_place, detections=1) == [(2, 1, 0.8)]


def test_no_proposals_and_those_that_are_not_finite() -> None:
    assert detections([[0.9, 0.05, 0.05]] * 3, [[math.nan] * 4, [math.inf] * 4, APART[2]]) == [
        (2, 0, 0.9)
    ]
    found = detect(torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0, 8), (9, 9), BoxHeadSpec())
    assert [tuple(part.shape) for part in found] == [(0, 4), (0,), (0,), (0,)]


def test_detections_are_clipped_to_the_picture() -> None:
    logits = torch.tensor([[5.0, 0.0]])
    boxes = torch.tensor([[90.0, -8.0, 130.0, 20.0]])
    found = detect(boxes, logits, torch.zeros(1, 4), (100, 100), BoxHeadSpec())
    assert found.boxes.tolist() == [[90, 0, 100, 20]]
