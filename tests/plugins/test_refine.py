"""Recomputed points put into what was upsampled, under a CPU emulator of CUDA threads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pointrend_deploy.graph.upsample import refine_labels, refine_logits
from tests.plugins.emulated import EmulatedKernels
from tests.plugins.test_upsample import whole_numbers

TYPES = [(a, b) for a in (torch.float32, torch.float16) for b in (torch.float32, torch.float16)]
"""Of the logits and of the point logits."""


def chosen(n: int, length: int, k: int) -> Tensor:
    """Different flat indices (N, K) of each image."""
    generator = torch.Generator().manual_seed(length)
    return torch.stack([torch.randperm(length, generator=generator)[:k] for _ in range(n)])


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 3, 5, 7), (1, 19, 9, 40), (2, 1, 3, 3)])
@pytest.mark.parametrize("scale", [2, 4])
def test_logits_are_torch_s(
    kernels: EmulatedKernels,
    shape: tuple[int, int, int, int],
    scale: int,
    types: tuple[torch.dtype, torch.dtype],
) -> None:
    """Sums of whole numbers are exact."""
    n, c, h, w = shape
    length = h * w * scale**2
    for k in {1, length // 3 + 1, length}:
        logits, indices = whole_numbers(*shape), chosen(n, length, k)
        points = whole_numbers(n, c, k, most=50)
        found = kernels.refine_logits(logits.to(types[0]), indices, points.to(types[1]), scale)
        assert torch.equal(found, refine_logits(logits, indices, points, scale))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("classes", [1, 2, 19, 300])
def test_labels_are_torch_s(kernels: EmulatedKernels, classes: int, dtype: torch.dtype) -> None:
    """Few values, so that ties are many: they go to the lower class."""
    for n, length, k in ((1, 1, 1), (2, 700, 300), (3, 257, 257)):
        labels = torch.randint(0, classes, (n, length), dtype=torch.int32)
        indices, points = chosen(n, length, k), whole_numbers(n, classes, k, most=2)
        found = kernels.refine_labels(labels, indices, points.to(dtype))
        assert torch.equal(found, refine_labels(labels, indices, points))


def test_nan_is_below_every_number(library: EmulatedKernels) -> None:
    points = torch.full((1, 3, 2), math.nan)
    points[0, 2, 0] = -1e30
    found = library.refine_labels(torch.full((1, 4), 9, dtype=torch.int32), chosen(1, 4, 2), points)
    assert sorted(found[0].tolist()) == [0, 2, 9, 9]


def test_an_index_beside_the_map_is_left_out(library: EmulatedKernels) -> None:
    labels = torch.full((2, 4), 9, dtype=torch.int32)
    indices = torch.tensor([[-1, 4, 2**40], [0, 3, -(2**40)]])
    points = torch.zeros(2, 2, 3)
    points[:, 1] = 1.0
    found = library.refine_labels(labels, indices, points)
    assert found.tolist() == [[9, 9, 9, 9], [1, 9, 9, 1]]
    logits = library.refine_logits(torch.zeros(2, 2, 1, 1), indices, points, 2)
    assert logits.flatten(2).tolist() == [[[0.0] * 4] * 2, [[0.0] * 4, [1.0, 0.0, 0.0, 1.0]]]


def test_what_cannot_be_done_is_refused(library: EmulatedKernels) -> None:
    room = [torch.zeros(4096) for _ in range(4)]
    base, indices, points, out = (each.data_ptr() for each in room)
    refine, put = library.library.pointrend_refine_logits, library.library.pointrend_refine_labels
    sizes = {"n": 1, "c": 2, "h": 3, "w": 4, "scale": 2, "k": 5}
    assert refine(base, 0, indices, points, 0, out, *sizes.values(), None) == 0
    for change in (
        *({"n": 0}, {"c": 0}, {"h": 0}, {"scale": 3}, {"k": 0}, {"k": -1}),
        *({"n": 40000}, {"c": 65536, "n": 2}, {"k": 2**30}),
    ):
        wrong = {**sizes, **change}.values()
        assert refine(base, 0, indices, points, 0, out, *wrong, None) == 1, change
    for kinds in ((2, 0), (0, 2)):
        assert refine(base, kinds[0], indices, points, kinds[1], out, *sizes.values(), None) == 1
    for missing in range(4):
        given = [
            None if i == missing else each for i, each in enumerate((base, indices, points, out))
        ]
        a, b, c, d = given
        assert refine(a, 0, b, c, 0, d, *sizes.values(), None) == 1
        assert put(a, b, c, 0, d, 1, 2, 48, 5, None) == 1
    assert put(base, indices, points, 0, out, 1, 2, 48, 5, None) == 0
    assert put(base, indices, points, 2, out, 1, 2, 48, 5, None) == 1
    for wrong_sizes in (
        (0, 2, 48, 5),
        (65536, 1, 1, 1),
        (1, 0, 48, 5),
        (1, 2, 0, 5),
        (1, 2, 48, 0),
    ):
        assert put(base, indices, points, 0, out, *wrong_sizes, None) == 1
