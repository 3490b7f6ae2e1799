"""Upsampling with what follows it, under a CPU emulator of CUDA threads, against torch.

Whole-numbered logits make every sum exact, so results are equal whatever the order of a sum.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.graph.upsample import upsample_labels
from pointrend_deploy.model.pointrend import uncertainty
from tests.plugins.emulated import EmulatedKernels

CLOSE = 2e-6
"""Max abs of logits of about 1: float32 sums of four products, in another order."""

NAN = math.nan
SHAPES = [(1, 2, 1, 1), (2, 3, 5, 7), (1, 19, 9, 40), (3, 4, 40, 3), (1, 5, 1, 33), (2, 2, 17, 1)]
"""One cell, one row, one column, several tiles of 32 x 8 along each axis, several images."""


def whole_numbers(*shape: int, most: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-most, most + 1, shape, generator=generator).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scale", [2, 4, 8, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_and_uncertainty_are_torch_s(
    kernels: EmulatedKernels, shape: tuple[int, int, int, int], scale: int, dtype: torch.dtype
) -> None:
    logits = whole_numbers(*shape)
    wanted, wanted_labels = upsample_labels(logits, scale)
    unsure, labels = kernels.labels(logits.to(dtype), scale)
    assert torch.equal(unsure, wanted)
    assert torch.equal(labels, wanted_labels)
    assert torch.equal(kernels.uncertainty(logits.to(dtype), scale), wanted)


@pytest.mark.parametrize("scale", [2, 4])
def test_real_numbers_differ_by_rounding_alone(library: EmulatedKernels, scale: int) -> None:
    logits = torch.randn(2, 19, 33, 45, generator=torch.Generator().manual_seed(0))
    wanted, wanted_labels = upsample_labels(logits.double(), scale)
    unsure, labels = library.labels(logits, scale)
    assert (unsure - wanted).abs().max() < CLOSE
    assert torch.equal(labels[wanted < -2 * CLOSE], wanted_labels[wanted < -2 * CLOSE])


def test_half_logits_are_upsampled_in_float32(library: EmulatedKernels) -> None:
    logits = whole_numbers(1, 6, 5, 7, most=300)
    wanted, _ = upsample_labels(logits, 4)
    assert torch.equal(library.uncertainty(logits.half(), 4), wanted)
    assert not torch.equal(wanted.half().float(), wanted)


def test_more_classes_than_a_byte_can_tell(library: EmulatedKernels) -> None:
    logits = torch.zeros(1, 1000, 3, 3)
    logits[0, 777] = 1.0
    unsure, labels = library.labels(logits, 2)
    assert torch.equal(labels, torch.full_like(labels, 777))
    assert torch.equal(unsure, torch.full_like(unsure, -1.0))


@pytest.mark.parametrize("tied", [(0, 1), (2, 5), (5, 6)])
def test_ties_go_to_the_lower_class(kernels: EmulatedKernels, tied: tuple[int, int]) -> None:
    logits = torch.randn(1, 7, 6, 9, generator=torch.Generator().manual_seed(1))
    logits[:, tied[0]] += 10
    logits[:, tied[1]] = logits[:, tied[0]]
    unsure, labels = kernels.labels(logits, 2)
    assert torch.equal(labels, torch.full_like(labels, tied[0]))
    assert torch.equal(unsure, torch.zeros_like(unsure))


def test_nan_is_below_every_number(library: EmulatedKernels) -> None:
    logits = whole_numbers(1, 4, 5, 6)
    wanted, wanted_labels = upsample_labels(logits[:, [0, 2, 3]], 2)
    logits[:, 1] = NAN
    unsure, labels = library.labels(logits, 2)
    assert torch.equal(unsure, wanted)
    assert torch.equal(labels, torch.tensor([0, 2, 3], dtype=torch.int32)[wanted_labels.long()])


def test_the_comparison_notices_aligned_corners(library: EmulatedKernels) -> None:
    logits = whole_numbers(2, 3, 6, 7)
    aligned = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=True)
    assert not torch.equal(library.uncertainty(logits, 2), uncertainty(aligned).flatten(1))


GOOD = {"n": 1, "c": 2, "h": 3, "w": 4, "scale": 2}
WRONG = [
    *({"n": 0}, {"c": 1}, {"h": 0}, {"w": -1}, {"n": 65536}),
    *({"scale": 1}, {"scale": 3}, {"scale": 0}, {"scale": 32}, {"scale": -2}),
    *({"h": 2**15, "w": 2**14}, {"h": 2**20, "w": 1}),
]


def test_what_cannot_be_done_is_refused(library: EmulatedKernels) -> None:
    room = [torch.zeros(4096) for _ in range(3)]
    logits, first, second = (each.data_ptr() for each in room)
    two_best = library.library.pointrend_upsample_two_best
    assert two_best(logits, 0, first, second, *GOOD.values(), None) == 0
    assert two_best(logits, 2, first, second, *GOOD.values(), None) == 1  # no such type
    for pointers in ((None, 0, first, second), (logits, 0, None, second)):
        assert two_best(*pointers, *GOOD.values(), None) == 1
    for change in WRONG:
        sizes = {**GOOD, **change}
        assert two_best(logits, 0, first, second, *sizes.values(), None) == 1, change
