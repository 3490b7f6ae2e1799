"""Two maps sampled at cells of a grid, under a CPU emulator of CUDA threads, against torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend_deploy.graph.ops import sample_cells
from tests.plugins.emulated import EmulatedKernels
from tests.plugins.test_kernels import CLOSE, POSITION

Sizes = tuple[int, int, int]


def problem(fine: Sizes, coarse: Sizes, grid: tuple[int, int], k: int) -> tuple[Tensor, ...]:
    """Two maps of two images, and different cells, those at the grid's corners among them."""
    generator = torch.Generator().manual_seed(k)
    maps = [torch.randn((2, *size), generator=generator) for size in (fine, coarse)]
    cells = grid[0] * grid[1]
    chosen = [torch.randperm(cells, generator=generator)[:k] for _ in range(2)]
    indices = torch.stack(chosen)
    indices[0, 0], indices[1, -1] = 0, cells - 1
    return maps[0], maps[1], indices


SIZES: list[tuple[Sizes, Sizes, tuple[int, int], int]] = [
    ((3, 7, 5), (2, 7, 5), (14, 10), 130),
    ((16, 6, 9), (19, 3, 4), (12, 18), 40),
    ((65, 4, 4), (7, 4, 4), (8, 8), 64),
    ((1, 1, 1), (1, 1, 1), (2, 2), 4),
    ((24, 5, 3), (8, 5, 3), (1000, 3), 33),
]


@pytest.mark.parametrize(("fine", "coarse", "grid", "k"), SIZES)
def test_both_maps_are_sampled_as_torch_does(
    kernels: EmulatedKernels, fine: Sizes, coarse: Sizes, grid: tuple[int, int], k: int
) -> None:
    features, logits, indices = problem(fine, coarse, grid, k)
    wanted = sample_cells(features, logits, indices, *grid)
    found = kernels.sample_cells(features, logits, indices, grid)
    close = CLOSE + 4 * POSITION * max(*grid)
    torch.testing.assert_close(found, wanted, atol=close, rtol=0)
    channels = fine[0] + coarse[0]
    assert found.shape[1] % 8 == 0 and found.shape[1] - channels < 8
    assert (found[:, channels:] == 0).all()


@pytest.mark.parametrize("last", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("fine", "coarse", "grid", "k"), SIZES)
def test_half_maps_in_either_layout(
    kernels: EmulatedKernels,
    fine: Sizes,
    coarse: Sizes,
    grid: tuple[int, int],
    k: int,
    last: tuple[bool, bool],
) -> None:
    *maps, indices = problem(fine, coarse, grid, k)
    features, logits = (each.half() for each in maps)
    wanted = sample_cells(features.float(), logits.float(), indices, *grid)
    found = kernels.sample_cells(features, logits, indices, grid, last)
    assert found.dtype == torch.float16
    close = CLOSE + 4 * POSITION * max(*grid) + wanted.abs() * 2.0**-11 + 2.0**-25
    assert ((found.float() - wanted).abs() <= close).all()
    assert (found[:, fine[0] + coarse[0] :] == 0).all()


def test_a_cell_beside_the_grid_samples_zeros(library: EmulatedKernels) -> None:
    indices = torch.tensor([[-1, 16, 2**40, 5]])
    found = library.sample_cells(torch.ones(1, 2, 4, 4), torch.ones(1, 1, 2, 2), indices, (4, 4))
    assert found[0, :3].tolist() == [[0.0, 0.0, 0.0, 1.0]] * 3


def test_the_comparison_notices_another_grid(library: EmulatedKernels) -> None:
    features, logits, indices = problem((3, 7, 5), (2, 7, 5), (10, 14), 130)
    wanted = sample_cells(features, logits, indices, 10, 14)
    found = library.sample_cells(features, logits, indices, (14, 10))
    assert (found - wanted).abs().max() > 0.1


def test_what_cannot_be_done_is_refused(library: EmulatedKernels) -> None:
    room = [torch.zeros(2048) for _ in range(4)]
    fine, coarse, indices, out = (each.data_ptr() for each in room)
    call = library.library.pointrend_sample_cells
    good = [fine, 0, 2, 3, 3, coarse, 0, 1, 3, 3, indices, 6, 6, out, 1, 4, None]
    assert call(*good) == 0
    wrong = [
        *((0, None), (1, 1), (1, 2), (1, 3), (2, 0), (3, 0), (4, -1), (5, None), (6, 1), (7, 0)),
        *((8, 0), (10, None), (11, 0), (12, 0), (12, 2**30), (13, None), (14, 0), (14, 65536)),
        *((15, 0), (2, 2**30)),
    ]
    for position, value in wrong:
        assert call(*good[:position], value, *good[position + 1 :]) == 1, (position, value)
    half = [*good[:1], 1, *good[2:6], 1, *good[7:]]
    assert call(*half) == 0
    misaligned = [fine + 2, 2, *half[2:]]
    assert call(*misaligned) == 1
