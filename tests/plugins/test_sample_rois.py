"""The first layer at points of RoIs, under the emulator: against the eager op."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pointrend_deploy.graph.instance.sample_rois import sample_rois
from tests.graph.instance.test_sample_rois import Inputs, inputs
from tests.plugins.emulated import FEATURE_TYPES, EmulatedKernels


def emulated(kernels: EmulatedKernels, given: Inputs) -> Tensor:
    """The kernel's answer; a result that it does not write is 77."""
    table, cells, bias, boxes, points = (each.contiguous() for each in given)
    n, h, w, c = table.shape
    r, side_h, side_w, d = cells.shape
    p = points.shape[1]
    out = torch.full((r, p, d), 77.0, dtype=table.dtype)
    maps = (table.data_ptr(), cells.data_ptr(), bias.data_ptr(), FEATURE_TYPES[table.dtype])
    pointers = (*maps, boxes.data_ptr(), points.data_ptr(), out.data_ptr())
    shape = (n, h, w, c, r, side_h, side_w, d, p)
    kernels.check(kernels.library.pointrend_sample_rois(*pointers, *shape, None))
    return out


@pytest.mark.parametrize("count", [1, 32, 33, 70])
@pytest.mark.parametrize(("channels", "own"), [(1, 1), (5, 8), (8, 8), (8, 24), (64, 80), (12, 16)])
def test_fp32(kernels: EmulatedKernels, channels: int, own: int, count: int) -> None:
    """About the points of a block; channels read one by one and four at once."""
    given = inputs(channels=channels, own=own, count=max(count, 4))
    given = (*given[:4], given[4][:, :count])
    found, wanted = emulated(kernels, given), sample_rois(*given)
    assert float((found - wanted).abs().max()) < 1e-5
    if own > 1:
        assert float((found - wanted.roll(1, dims=2)).abs().max()) > 0.1


@pytest.mark.parametrize(("channels", "own"), [(5, 8), (8, 16), (64, 80), (12, 16)])
def test_fp16(kernels: EmulatedKernels, channels: int, own: int) -> None:
    """Rounded once: half a step of FP16, and what FP32 sums differ by."""
    table, cells, bias, boxes, points = inputs(channels=channels, own=own)
    halves = (table.half(), cells.half(), bias.half())
    found = emulated(kernels, (*halves, boxes, points))
    wanted = sample_rois(*(each.float() for each in halves), boxes, points)
    assert found.dtype == torch.float16
    assert bool(((found.float() - wanted).abs() <= wanted.abs() * 2**-11 + 1e-5).all())


@pytest.mark.parametrize("rois", [1, 3])
def test_the_alignment_changes_nothing(library: EmulatedKernels, rois: int) -> None:
    table, cells, bias, boxes, points = inputs(1, rois, channels=8, own=16)
    room = torch.zeros(table.numel() + 1)
    room[1:] = table.flatten()
    moved = room[1:].reshape(table.shape)
    assert moved.data_ptr() % 16 == 4
    given = (table, cells, bias, boxes, points)
    assert torch.equal(emulated(library, (moved, *given[1:])), emulated(library, given))


def test_cells_outside_are_never_read(library: EmulatedKernels) -> None:
    """A box beside the map, one that is infinite, and a point that is NaN."""
    table = torch.full((1, 4, 4, 1), math.nan)
    cells = torch.ones(3, 1, 1, 2)
    beside = [2.0, 2.0, 3.0, 3.0]
    boxes = torch.tensor([beside, [math.inf, 0.0, math.inf, 1.0], beside])
    points = torch.tensor([[[0.5, 0.5]], [[0.5, 0.5]], [[math.nan, 0.5]]])
    found = emulated(library, (table, cells, torch.tensor([0.25]), boxes, points))
    assert found.tolist() == [[[1.25, 1.0]], [[1.25, 1.0]], [[0.25, 0.0]]]


def test_nan_is_not_rectified(library: EmulatedKernels) -> None:
    table, cells, bias, boxes, points = inputs(1, 1, channels=8, own=8)
    boxes[:] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    found = emulated(library, (table * math.nan, cells, bias, boxes, points))
    assert bool(found.isnan().all())


@pytest.mark.parametrize(
    "shape",
    [
        (0, 2, 2, 4, 2, 2, 2, 4, 3),
        (1, 2, 2, 4, 2, 2, 2, 3, 3),
        (2, 2, 2, 4, 3, 2, 2, 4, 3),
        (1, 65536, 32768, 4, 2, 2, 2, 4, 3),
        (1, 2, 2, 4, 2, 65536, 32768, 4, 3),
        (1, 2, 2, 4, 2**30, 2, 2, 4, 100),
        (1, 2, 2, 4, 2, 2, 2, 2**25, 3),
        (1, 2, 2, 4, 2, 2, 2, 4, 0),
    ],
)
def test_refuses_what_it_cannot_do(library: EmulatedKernels, shape: tuple[int, ...]) -> None:
    room = torch.zeros(4096)
    at = room.data_ptr()
    call = library.library.pointrend_sample_rois
    given = (at, at, at, 0, at, at, at + 8192)
    assert call(*given, 1, 2, 2, 4, 2, 2, 2, 4, 3, None) == 0
    assert call(*given, *shape, None) == 1
    assert call(at, at, None, *given[3:], 1, 2, 2, 4, 2, 2, 2, 4, 3, None) == 1
    assert call(*given[:3], 2, *given[4:], 1, 2, 2, 4, 2, 2, 2, 4, 3, None) == 1
