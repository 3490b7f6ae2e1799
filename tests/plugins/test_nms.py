"""Non-maximum suppression under the CPU emulator of CUDA threads, against the reference: equal."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.boxes import grouped_nms, pairwise_iou
from tests.plugins.emulated import EmulatedKernels
from tests.plugins.hard_numbers import hard_to_order

INF, NAN = math.inf, math.nan
EVERY = -3.4e38
"""A score threshold that every finite score is above."""


def reference(boxes: Tensor, scores: Tensor, k: int, iou: float, score: float) -> list[list[int]]:
    """Kept candidates of each picture, the best k of grouped_nms over those above the threshold."""
    length = scores.shape[2]
    kept = []
    for of_picture, flat in zip(boxes.flatten(1, 2), scores.flatten(1), strict=True):
        live = (flat > score).nonzero()[:, 0]
        best = grouped_nms(of_picture[live], flat[live], live // length, iou)
        kept.append(live[best][:k].tolist())
    return kept


def assert_equal(
    kernels: EmulatedKernels,
    boxes: Tensor,
    scores: Tensor,
    k: int,
    iou: float = 0.5,
    score: float = EVERY,
) -> list[list[int]]:
    indices, count = kernels.nms(boxes, scores, k, iou, score)
    expected = reference(boxes, scores, k, iou, score)
    assert count.tolist() == [len(kept) for kept in expected]
    assert indices.tolist() == [kept + [0] * (k - len(kept)) for kept in expected]
    return expected


def crowd(n: int, groups: int, length: int, generator: torch.Generator) -> Tensor:
    """Boxes that overlap a good deal: (N, G, L, 4)."""
    corner = torch.rand((n, groups, length, 2), generator=generator) * math.sqrt(length) * 6
    size = torch.rand((n, groups, length, 2), generator=generator) * 60 + 1
    return torch.cat((corner, corner + size), dim=3)


def scores_of(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Scores of a kind, below the largest float32 so that EVERY is a threshold under them."""
    return hard_to_order(shape, generator, few=(-2, 3), equal=0.25, largest=3.3e38)[kind]


KINDS = (
    *("random", "few values", "all equal", "signed zeros", "one bit apart", "special"),
    *("all NaN", "all -inf but NaN"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", [-INF, 0.0])
def test_order_is_the_reference_s(kernels: EmulatedKernels, kind: str, score: float) -> None:
    """Group lengths about a tile of 64, and a power of two for the sort."""
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    for groups, length in ((1, 1), (3, 2), (2, 63), (3, 64), (2, 65), (2, 130)):
        boxes = crowd(2, groups, length, generator)
        scores = scores_of(kind, (2, groups, length), generator)
        for k in sorted({1, 2, length // 2 + 1, groups * length, groups * length + 5}):
            assert_equal(kernels, boxes, scores, k, score=score)


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.7, 1.0])
def test_any_overlap_threshold(kernels: EmulatedKernels, iou: float) -> None:
    generator = torch.Generator().manual_seed(1)
    boxes = crowd(1, 3, 150, generator)
    boxes[:, :, 100:] = boxes[:, :, :50]  # the same box twice: IoU 1 is not above 1
    kept = assert_equal(kernels, boxes, torch.rand((1, 3, 150), generator=generator), 400, iou)
    assert (len(kept[0]) == 450 - 50) == (iou == 1.0) or len(kept[0]) < 400


def test_proposals(library: EmulatedKernels) -> None:
    """Five levels of a thousand candidates, all of them live."""
    generator = torch.Generator().manual_seed(2)
    boxes, scores = crowd(1, 5, 1000, generator), torch.randn((1, 5, 1000), generator=generator)
    assert len(assert_equal(library, boxes, scores, 1000, 0.7)[0]) == 1000


def test_eighty_classes_of_a_thousand(kernels: EmulatedKernels) -> None:
    """As a box head gives them: most scores below the threshold, whole classes without any."""
    generator = torch.Generator().manual_seed(3)
    boxes = crowd(2, 80, 1000, generator)
    scores = torch.rand((2, 80, 1000), generator=generator) ** 40
    scores[0, 5:40] = 0.0
    scores[1, 1:] = 0.0
    kept = assert_equal(kernels, boxes, scores, 100, score=0.05)
    assert len(kept[0]) == 100 and 10 < len(kept[1]) < 100


def test_many_classes_that_are_all_live(library: EmulatedKernels) -> None:
    generator = torch.Generator().manual_seed(4)
    boxes, scores = crowd(1, 300, 30, generator), torch.rand((1, 300, 30), generator=generator)
    assert_equal(library, boxes, scores, 3840)


@pytest.mark.parametrize("length", [2048, 2049, 3000])
def test_groups_too_long_for_shared_memory(library: EmulatedKernels, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    boxes = crowd(1, 2, length, generator)
    scores = torch.randint(0, 500, (1, 2, length), generator=generator).float()
    scores[0, 0, 7:2000] = NAN  # and one group whose candidates are few
    assert_equal(library, boxes, scores, 700, 0.3)


def test_a_group_stops_at_k(kernels: EmulatedKernels) -> None:
    """Boxes far apart: each is kept until k are, before, at and past the end of a tile."""
    corner = torch.arange(200.0).reshape(1, 1, 200, 1) * 10
    boxes = torch.cat((corner, corner, corner + 5, corner + 5), dim=3).repeat(1, 2, 1, 1)
    scores = torch.rand((1, 2, 200), generator=torch.Generator().manual_seed(5))
    for k in (1, 63, 64, 65, 128, 130):
        assert len(assert_equal(kernels, boxes, scores, k)[0]) == k


def test_a_chain_of_suppressions(kernels: EmulatedKernels) -> None:
    """Each box overlaps the next one: who is kept hangs on all before it, over several tiles."""
    left = torch.arange(300.0).reshape(1, 1, 300, 1)
    zero = torch.zeros_like(left)
    boxes = torch.cat((left, zero, left + 2.5, zero + 1), dim=3)
    scores = -left[..., 0]
    kept = assert_equal(kernels, boxes, scores, 300, 0.3)
    assert kept[0] == list(range(0, 300, 2))


def test_groups_never_suppress_one_another(kernels: EmulatedKernels) -> None:
    boxes = torch.tensor([0.0, 0.0, 9.0, 9.0]).repeat(1, 70, 2, 1)
    scores = torch.full((1, 70, 2), 0.5)
    kept = assert_equal(kernels, boxes, scores, 100)
    assert kept[0] == list(range(0, 140, 2))  # and ties go to the lower index


def test_boxes_that_are_empty_or_nowhere(kernels: EmulatedKernels) -> None:
    """An IoU of 0 / 0 or NaN is not above the threshold: all of these are kept."""
    odd = [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0], [9.0, 9.0, 5.0, 5.0], [9.0, 9.0, 5.0, 5.0]]
    odd += [
        [0.0, 0.0, 9.0, NAN],
        [0.0, 0.0, 9.0, NAN],
        [-INF, 0.0, INF, 9.0],
        [-INF, 0.0, INF, 9.0],
    ]
    odd += [[1e-30, 0.0, 2e-30, 1e-30], [1e-30, 0.0, 2e-30, 1e-30], [0.0, 0.0, 3e38, 3e38]]
    boxes, scores = torch.tensor([[odd]]), torch.arange(len(odd)).float().reshape(1, 1, -1)
    assert len(assert_equal(kernels, boxes, scores, 20)[0]) == len(odd)
    assert len(assert_equal(kernels, boxes, scores, 20, 0.0)[0]) == len(odd)


def test_overlaps_at_the_threshold(kernels: EmulatedKernels) -> None:
    """Thresholds that are the IoU of a pair, and the float below: strictly above counts."""
    pairs = torch.rand((1, 100, 2, 4), generator=torch.Generator().manual_seed(6)) * 0.3
    pairs[..., 2:] += 0.7
    scores = torch.tensor([1.0, 0.5]).repeat(1, 100, 1)
    for group in range(5):
        overlap = pairwise_iou(pairs[0, group])[0, 1]
        below = overlap.nextafter(torch.tensor(0.0))
        at, under = (
            assert_equal(kernels, pairs, scores, 200, float(threshold))[0]
            for threshold in (overlap, below)
        )
        assert 2 * group + 1 in at and 2 * group + 1 not in under


def test_no_candidates(kernels: EmulatedKernels) -> None:
    boxes, scores = torch.zeros((2, 3, 40, 4)), torch.rand((2, 3, 40))
    assert assert_equal(kernels, boxes, scores, 10, score=1.0) == [[], []]
    assert assert_equal(kernels, boxes, scores, 10, score=INF) == [[], []]


def test_a_score_at_the_threshold_is_no_candidate(kernels: EmulatedKernels) -> None:
    boxes = crowd(1, 1, 4, torch.Generator().manual_seed(7))
    scores = torch.tensor([[[0.05, 0.05, 0.0, 0.04]]])
    scores[0, 0, 1] = scores[0, 0, 1].nextafter(torch.tensor(1.0))
    assert assert_equal(kernels, boxes, scores, 4, score=0.05) == [[1]]


def test_the_comparison_notices_another_rule(library: EmulatedKernels) -> None:
    generator = torch.Generator().manual_seed(8)
    boxes, scores = crowd(1, 2, 100, generator), torch.rand((1, 2, 100), generator=generator)
    expected = reference(boxes, scores, 50, 0.5, EVERY)[0]
    for other in (
        (boxes, scores.flip(2), 0.5),
        (boxes, scores, 0.45),
        (boxes.flip(2), scores, 0.5),
    ):
        indices, _ = library.nms(*other[:2], 50, other[2], EVERY)
        assert indices[0].tolist() != expected


def test_suppression_refuses_what_it_cannot_do(library: EmulatedKernels) -> None:
    size = library.library.pointrend_nms_workspace(1, 2, 8)
    room = torch.zeros(size + 256, dtype=torch.uint8)
    workspace = room.data_ptr() + -room.data_ptr() % 256
    numbers, out = torch.zeros(64), torch.zeros(64, dtype=torch.int64)
    boxes, indices = numbers.data_ptr(), out.data_ptr()
    good = (boxes, boxes, indices, indices + 256, 1, 2, 8, 10, 0.5, 0.0, workspace, size, None)
    call = library.library.pointrend_nms
    assert call(*good) == 0
    wrong = [
        *((0, None), (1, None), (2, None), (3, None)),
        *((10, None), (10, workspace + 8), (11, size - 1)),
        *((4, 0), (4, 65536), (5, 0), (5, 65536), (6, 0), (7, 0), (7, 3841)),
        *((8, -0.1), (8, 1.1), (8, NAN), (9, NAN)),
    ]
    for position, value in wrong:
        assert call(*good[:position], value, *good[position + 1 :]) == 1, (position, value)


def test_workspace_is_a_closed_form(library: EmulatedKernels) -> None:
    """16 bytes of box and 8 of key a candidate, 4 a group; each part 256-aligned."""

    def up(size: int) -> int:
        return -(-size // 256) * 256

    workspace = library.library.pointrend_nms_workspace
    for n, groups, length in (
        (1, 1, 1),
        (2, 80, 1000),
        (1, 5, 2**28),
        (65535, 1, 3),
        (1, 65535, 2),
    ):
        cells = n * groups * length
        assert workspace(n, groups, length) == up(16 * cells) + up(8 * cells) + up(4 * n * groups)
    wrong = [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1), (65536, 1, 1), (1, 65536, 1)]
    wrong += [(1, 1, 2**30 + 1), (1, 2, 2**30), (32769, 65535, 1)]
    assert [workspace(*shape) for shape in wrong] == [0] * len(wrong)
