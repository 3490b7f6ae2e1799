"""RoIAlign under the CPU emulator of CUDA threads, against the reference."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.roi_align import levels_of, pool_boxes
from tests.plugins.emulated import EmulatedKernels

CLOSE = 1e-5
"""Max abs of values of about 1: the same float32 positions, sums in another order."""

INF, NAN = math.inf, math.nan


def pyramid(
    n: int, c: int, hw: tuple[int, int], levels: int, generator: torch.Generator
) -> list[Tensor]:
    """Maps of a picture of hw pixels from level 2 on."""
    sizes = [(-(-hw[0] // 2**i), -(-hw[1] // 2**i)) for i in range(2, 2 + levels)]
    return [torch.randn((n, c, h, w), generator=generator) for h, w in sizes]


def boxes_in(n: int, r: int, hw: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(N, R, 4) of rising size, 2 to 900 pixels, of all levels; some beyond the picture."""
    centre = torch.rand((n, r, 2), generator=generator) * torch.tensor([hw[1], hw[0]])
    half = torch.logspace(0, math.log10(450), r)[None, :, None].repeat(n, 1, 2)
    half *= 0.7 + 0.6 * torch.rand((n, r, 2), generator=generator)
    return torch.cat((centre - half, centre + half), dim=2)


def reference(
    boxes: Tensor, features: Sequence[Tensor], first: int, side: int, ratio: int = 0
) -> Tensor:
    """pool_boxes picture by picture, in float32."""
    levels = range(first, first + len(features))
    each = [
        pool_boxes(
            [feature[i : i + 1].float() for feature in features], levels, of_picture, side, ratio
        )
        for i, of_picture in enumerate(boxes)
    ]
    return torch.cat(each)


def assert_agrees(
    kernels: EmulatedKernels, boxes: Tensor, features: Sequence[Tensor], first: int, side: int
) -> Tensor:
    pooled = kernels.roi_align(boxes, features, first, side)
    expected = reference(boxes, features, first, side)
    torch.testing.assert_close(pooled, expected, atol=CLOSE, rtol=0)
    return pooled


@pytest.mark.parametrize("side", [1, 7, 14, 64])
@pytest.mark.parametrize("channels", [1, 4, 33])
def test_pooling_is_the_reference_s(kernels: EmulatedKernels, channels: int, side: int) -> None:
    """Channels: fewer than a thread serves, just so many, and more than a block serves."""
    generator = torch.Generator().manual_seed(side)
    features = pyramid(2, channels, (250, 380), 4, generator)
    boxes = boxes_in(2, 12, (250, 380), generator)
    assert len(torch.unique(levels_of(boxes.reshape(-1, 4), 2, 5))) == 4
    assert_agrees(kernels, boxes, features, 2, side)


@pytest.mark.parametrize(("side", "ratio"), [(1, 1), (7, 2), (14, 3), (5, 16)])
def test_a_fixed_number_of_samples(kernels: EmulatedKernels, side: int, ratio: int) -> None:
    """Boxes of all levels, beside the map, without area and without width."""
    generator = torch.Generator().manual_seed(side)
    features = pyramid(2, 5, (250, 380), 4, generator)
    boxes = boxes_in(2, 12, (250, 380), generator)
    boxes[0, 0] = torch.tensor([50.0, 60.0, 50.0, 60.0])
    boxes[1, 3, 2] = boxes[1, 3, 0]
    pooled = kernels.roi_align(boxes, features, 2, side, ratio)
    expected = reference(boxes, features, 2, side, ratio)
    torch.testing.assert_close(pooled, expected, atol=CLOSE, rtol=0)
    assert pooled[0].abs().max() > 0
    other = reference(boxes, features, 2, side, ratio + 1)
    assert (pooled - other).abs().max() > 1000 * CLOSE


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("first", [0, 2, 8])
def test_any_levels_the_op_names(kernels: EmulatedKernels, first: int, levels: int) -> None:
    """Boxes that belong above or below the levels there are take the nearest."""
    generator = torch.Generator().manual_seed(10 * first + levels)
    features = [torch.randn((1, 3, 16 - 2 * i, 20 - i), generator=generator) for i in range(levels)]
    boxes = boxes_in(1, 20, (14, 18), generator) * 2.0**first
    assert_agrees(kernels, boxes, features, first, 7)


def test_long_thin_boxes(kernels: EmulatedKernels) -> None:
    """Dozens of samples a bin along one axis, one along the other, whatever the box's level."""
    features = pyramid(1, 2, (64, 1333), 4, torch.Generator().manual_seed(1))
    thin = [[0.0, 30.0, 1333.0, 34.0], [3.0, 10.0, 1300.5, 10.25], [700.0, 0.0, 700.01, 64.0]]
    assert_agrees(kernels, torch.tensor([thin]), features, 2, 7)


def test_samples_beside_the_map(kernels: EmulatedKernels) -> None:
    """Up to one cell outside they take the edge's value, further out 0: at either limit."""
    feature = torch.randn((1, 2, 8, 8), generator=torch.Generator().manual_seed(2))
    over = [
        *([-32.0, -32.0, 64.0, 64.0], [-100.0, 4.0, -1.0, 20.0], [28.0, 28.0, 90.0, 41.0]),
        *([-4.0, -4.0, 0.0, 0.0], [32.0, 30.0, 37.0, 38.0], [-500.0, -3.0, 500.0, 3.0]),
        # the middle of the only sample: -1, just below it, 8 and just above it
        *([-3.0, 8.0, -1.0, 12.0], [-3.00001, 8.0, -1.00001, 12.0]),
        *([33.0, 8.0, 35.0, 12.0], [33.00001, 8.0, 35.00001, 12.0]),
    ]
    pooled = assert_agrees(kernels, torch.tensor([over]), [feature], 2, 1)
    edge = [bool(pooled[i].abs().max() > 0) for i in range(6, 10)]
    assert edge == [True, False, True, False]


def test_a_box_without_area_gives_zeros(kernels: EmulatedKernels) -> None:
    features = pyramid(1, 5, (64, 64), 4, torch.Generator().manual_seed(3))
    empty = [[5.0, 5.0, 5.0, 9.0], [5.0, 5.0, 9.0, 5.0], [0.0] * 4, [9.0, 9.0, 5.0, 5.0]]
    empty += [[9.0, 5.0, 5.0, 9.0], [1e6, 1e6, 1e6 + 0.01, 1e6 + 9]]
    assert assert_agrees(kernels, torch.tensor([empty]), features, 2, 7).abs().max() == 0


def test_a_box_that_is_nowhere_gives_zeros(library: EmulatedKernels) -> None:
    """The reference would run out of memory over the infinite ones."""
    features = pyramid(1, 2, (64, 64), 4, torch.Generator().manual_seed(4))
    nowhere = [[NAN, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, NAN], [-INF, 0.0, 9.0, 9.0]]
    nowhere += [[-INF, -INF, INF, INF], [0.0, 0.0, 3e38, 9.0], [0.0, 0.0, INF, 9.0]]
    for ratio in (0, 2):
        assert library.roi_align(torch.tensor([nowhere]), features, 2, 7, ratio).abs().max() == 0


def test_a_box_of_a_million_pixels_reads_the_map_only(library: EmulatedKernels) -> None:
    """Nearly all of its samples are outside: of each bin only those inside are looked at."""
    feature = torch.ones((1, 1, 50, 50))
    wide = torch.tensor([[[-1e6, -50.0, 1e6, 250.0]]])
    pooled = library.roi_align(wide, [feature], 2, 3)
    assert pooled[0, 0, :, 0].abs().max() == pooled[0, 0, :, 2].abs().max() == 0
    # 51 or 52 columns of samples, a cell apart, of 166,667; rows: 18 of 25, all, and 18 of 25
    shares = pooled[0, 0, :, 1] * 166_667 / 51.5
    torch.testing.assert_close(shares, torch.tensor([13, 25, 13]) / 25, atol=0.03, rtol=0)


def test_levels_change_at_the_reference_s_floats(library: EmulatedKernels) -> None:
    """At every limit between two levels, for the 20 floats of size on either side of it."""
    flat = [torch.full((1, 1, 4, 4), float(i)) for i in range(4)]
    for first in range(9):
        for limit in range(first + 1, first + 4):
            middle = np.float32(224 * 2.0 ** (limit - 4)).view(np.int32)
            sizes = np.arange(middle - 20, middle + 21, dtype=np.int32).view(np.float32)
            boxes = torch.zeros((1, len(sizes), 4))
            boxes[0, :, 2] = boxes[0, :, 3] = torch.from_numpy(sizes)
            expected = levels_of(boxes[0], first, first + 3) - first
            assert len(torch.unique(expected)) == 2
            # a map's value is its place, and the first bin of such a box lies inside
            pooled = library.roi_align(boxes, flat, first, 7)[:, 0, 0, 0]
            assert torch.equal(pooled.round().long(), expected), (first, limit)


def test_pooling_half_features(kernels: EmulatedKernels) -> None:
    """Sums are float32: the only loss is one rounding of the result."""
    generator = torch.Generator().manual_seed(5)
    features = [feature.half() for feature in pyramid(2, 6, (120, 200), 4, generator)]
    boxes = boxes_in(2, 9, (120, 200), generator)
    pooled = kernels.roi_align(boxes, features, 2, 7)
    assert pooled.dtype == torch.float16
    expected = reference(boxes, features, 2, 7)
    half_an_ulp = expected.abs() * 2.0**-11 + 2.0**-25
    assert ((pooled.float() - expected).abs() <= half_an_ulp + CLOSE).all()


def test_the_comparison_notices_another_grid(library: EmulatedKernels) -> None:
    """Half a cell off, as without `aligned`, and the next level are far beyond the tolerance."""
    generator = torch.Generator().manual_seed(6)
    features = pyramid(1, 3, (120, 200), 4, generator)
    boxes = boxes_in(1, 9, (120, 200), generator)
    pooled = library.roi_align(boxes, features, 2, 7)
    for other in (reference(boxes + 2.0, features, 2, 7), reference(boxes, features[1:], 3, 7)):
        assert (pooled - other).abs().max() > 1000 * CLOSE


def test_pooling_refuses_what_it_cannot_do(library: EmulatedKernels) -> None:
    room = torch.zeros(4096)
    at = room.data_ptr()
    call = library.library.pointrend_roi_align

    def numbers(*values: int) -> ctypes.Array[ctypes.c_int32]:
        return (ctypes.c_int32 * len(values))(*values)

    maps = (ctypes.c_void_p * 4)(at, at, at, at)
    sizes = numbers(4, 4, 4, 4)
    good = (at, maps, 0, at + 8192, 1, 1, 1, sizes, sizes, 2, 4, 7, 0, None)
    assert call(*good) == 0
    wrong = [
        *((0, None), (1, None), (3, None), (7, None), (8, None), (2, 2), (2, 3)),
        *((4, 0), (5, 0), (6, 0), (6, 65535 * 32 + 1)),
        *((9, -1), (9, 9), (9, 2**31 - 1), (10, 0), (10, 5), (11, 0), (11, 65)),
        *((12, -1), (12, 17)),
        *((1, (ctypes.c_void_p * 4)(at, None, at, at)), (7, numbers(4, 4, 4, 0))),
        *((7, numbers(4, 10997, 4, 4)), (8, numbers(2**31 - 1, 4, 4, 4))),
    ]
    for position, value in wrong:
        assert call(*good[:position], value, *good[position + 1 :]) == 1, (position, value)
    assert call(*good[:4], 65536, 32768, *good[6:]) == 1
