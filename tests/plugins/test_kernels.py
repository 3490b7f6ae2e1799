"""Sampling and selection under a CPU emulator of CUDA threads, against torch."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.pointrend import point_sample
from tests.plugins.emulated import EmulatedKernels
from tests.plugins.hard_numbers import hard_to_order

CLOSE = 1e-5
"""Max abs of values of about 1: float32 sums of four products in another order."""

POSITION = 2.0**-23
"""Of the map's longer side: the step of a float32 position, that torch rounds once less where it
multiplies and adds in one instruction. Values of about 1 change by up to 4 of them a cell."""

INF, NAN = math.inf, math.nan


def highest(uncertainty: Tensor, k: int) -> Tensor:
    """A stable descending sort with NaN last, cut at k, in ascending order of index."""
    values = uncertainty.double().numpy()
    order = [sorted(range(len(v)), key=lambda i: (np.isnan(v[i]), -v[i], i)) for v in values]
    return torch.tensor([sorted(row[:k]) for row in order])


def highest_of_many(uncertainty: Tensor, k: int) -> Tensor:
    """The same without NaN, for long rows."""
    order = torch.sort(uncertainty, dim=1, descending=True, stable=True).indices
    return order[:, :k].sort(dim=1).values


def rows(kind: str, length: int, generator: torch.Generator) -> Tensor:
    """Uncertainty (2, L) of a kind."""
    shape = (2, length)
    kinds = hard_to_order(shape, generator, few=(-2, 2), equal=-0.25, largest=3.4e38)
    normal = kinds["random"]
    kinds["uncertainty"] = -normal.abs()
    kinds["subnormal"] = normal * 1e-42
    kinds["ascending"] = torch.arange(2 * length).reshape(shape).float()
    return kinds[kind]


KINDS = (
    *("random", "uncertainty", "few values", "all equal", "signed zeros", "one bit apart"),
    *("subnormal", "ascending", "special", "all NaN", "all -inf but NaN"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_selection_is_a_stable_sort(kernels: EmulatedKernels, kind: str) -> None:
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    for length in (1, 31, 33, 1023, 1025, 3000):
        values = rows(kind, length, generator)
        for k in sorted({1, min(2, length), length // 3 + 1, max(1, length - 1), length}):
            assert torch.equal(kernels.uncertain(values, k), highest(values, k)), (length, k)


def test_selection_over_many_segments(kernels: EmulatedKernels) -> None:
    """More segments than the threads that place them, with ties across them."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(0, 500, (1, 300_000), generator=generator).float()
    assert torch.equal(kernels.uncertain(values, 150_001), highest_of_many(values, 150_001))


@pytest.mark.parametrize("equal", [False, True])
def test_selection_of_8192_from_two_million(library: EmulatedKernels, equal: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    values = -torch.rand((1, 1024 * 2048), generator=generator)
    values = torch.full_like(values, -0.5) if equal else values
    assert torch.equal(library.uncertain(values, 8192), highest_of_many(values, 8192))


def test_more_rows_than_one(kernels: EmulatedKernels) -> None:
    values = torch.randn((5, 700), generator=torch.Generator().manual_seed(5))
    assert torch.equal(kernels.uncertain(values, 100), highest(values, 100))


def test_a_wrong_selection_is_noticed() -> None:
    values = torch.tensor([[1.0, 2.0, 2.0, NAN]])
    assert highest(values, 1).tolist() == [[1]]
    assert highest(values, 3).tolist() == [[0, 1, 2]]
    assert not torch.equal(highest(values, 1), torch.tensor([[2]]))


def test_keys_have_the_order_of_floats(library: EmulatedKernels) -> None:
    ascending = [-INF, -3.4e38, -1.0, -1e-45, 0.0, 1e-45, 0.5, 1.0, 3.4e38, INF]
    keys = [library.library.host_order_key(value) for value in ascending]
    assert keys == sorted(set(keys))
    assert library.library.host_order_key(-0.0) == library.library.host_order_key(0.0)
    assert library.library.host_order_key(NAN) == 0 < keys[0]
    assert library.library.host_order_key(-NAN) == 0


def points_of(kind: str, count: int, h: int, w: int, generator: torch.Generator) -> Tensor:
    inside = torch.rand((2, count, 2), generator=generator)
    centres = (torch.floor(inside * torch.tensor([w, h])) + 0.5) / torch.tensor([w, h])
    far = torch.tensor([1e30, -1e30, 1e9, 1e5, 8e4, -3.0, 4.0])
    return {
        "inside": inside,
        "around": inside * 1.6 - 0.3,
        "centres": centres,
        "edges": torch.round(inside),
        "far": far[torch.randint(0, 7, inside.shape, generator=generator)],
    }[kind]


@pytest.mark.parametrize("kind", ["inside", "around", "centres", "edges", "far"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (16, 9, 16), (17, 90, 160), (40, 2, 1)])
def test_sampling_is_torch_s(
    kernels: EmulatedKernels, kind: str, shape: tuple[int, int, int]
) -> None:
    c, h, w = shape
    generator = torch.Generator().manual_seed(c * h)
    features = torch.randn((2, c, h, w), generator=generator)
    points = points_of(kind, 150, h, w, generator)
    expected = point_sample(features, points)
    close = CLOSE if max(h, w) < 32 else CLOSE + 4 * POSITION * max(h, w)
    torch.testing.assert_close(kernels.sample(features, points), expected, atol=close, rtol=0)


def test_sampling_a_wide_map_keeps_float32_coordinates(library: EmulatedKernels) -> None:
    """A ramp shows the position itself: half precision would be 0.5 px off at 1280 wide."""
    width = 1280
    features = torch.arange(width).float().repeat(1, 1, 720, 1) / width
    points = torch.rand((1, 500, 2), generator=torch.Generator().manual_seed(6))
    expected = point_sample(features, points)
    sampled = library.sample(features, points)
    torch.testing.assert_close(sampled, expected, atol=CLOSE, rtol=0)
    rounded = library.sample(features, points.half().float())
    assert (rounded - expected).abs().max() > 1e-4  # and the test would notice


def test_sampling_half_features(kernels: EmulatedKernels) -> None:
    """Sums are float32: the only loss is one rounding of the result."""
    generator = torch.Generator().manual_seed(7)
    features = torch.randn((2, 19, 45, 80), generator=generator).half()
    points = points_of("around", 200, 45, 80, generator)
    expected = point_sample(features.float(), points)
    sampled = kernels.sample(features, points)
    assert sampled.dtype == torch.float16
    half_an_ulp = expected.abs() * 2.0**-11 + 2.0**-25
    assert ((sampled.float() - expected).abs() <= half_an_ulp + CLOSE).all()


@pytest.mark.parametrize("nowhere", [NAN, INF, -INF])
def test_a_point_that_is_nowhere_samples_zero(library: EmulatedKernels, nowhere: float) -> None:
    features = torch.ones((1, 2, 4, 4))
    points = torch.tensor([[[nowhere, 0.5], [0.5, nowhere], [0.5, 0.5]]])
    assert library.sample(features, points)[0].tolist() == [[0.0, 0.0, 1.0]] * 2


def test_cells_outside_are_never_read(library: EmulatedKernels) -> None:
    """A NaN at the far side of the map would show in a product with weight 0."""
    features = torch.full((1, 1, 4, 4), NAN)
    features[0, 0, 0, 0] = 2.0
    corner = torch.tensor([[[0.0, 0.0], [1 / 16, 1 / 16]]])
    assert library.sample(features, corner)[0, 0].tolist() == [0.5, 1.125]


@pytest.mark.parametrize("shape", [(0, 1, 2, 2, 3), (1, 0, 2, 2, 3), (1, 1, 0, 2, 3)])
def test_sampling_nothing_is_refused(library: EmulatedKernels, shape: tuple[int, ...]) -> None:
    room = torch.zeros(64)
    call = library.library.pointrend_sample
    error = call(room.data_ptr(), 0, room.data_ptr(), room.data_ptr(), *shape, None)
    with pytest.raises(RuntimeError, match="invalid argument"):
        library.check(error)


def test_sampling_refuses_what_it_cannot_do(library: EmulatedKernels) -> None:
    room = torch.zeros(64)
    at = room.data_ptr()
    sample = library.library.pointrend_sample
    fine = (1, 1, 4, 4, 4, None)
    assert sample(at, 0, at + 128, at + 192, *fine) == 0
    assert sample(at, 3, at, at, *fine) == 1  # no such type
    for missing in range(3):
        pointers = [at, at, at]
        pointers[missing] = None  # type: ignore[call-overload]
        assert sample(pointers[0], 0, pointers[1], pointers[2], *fine) == 1
    assert sample(at, 0, at, at, 65536, 1, 1, 1, 1, None) == 1
    assert sample(at, 0, at, at, 1, 65535 * 16 + 1, 1, 1, 1, None) == 1
    assert sample(at, 0, at, at, 1, 1, 65536, 32768, 1, None) == 1


def test_selection_refuses_what_it_cannot_do(library: EmulatedKernels) -> None:
    size = library.library.pointrend_uncertain_workspace(1, 100)
    room = torch.zeros(size + 512, dtype=torch.uint8)
    workspace = room.data_ptr() + -room.data_ptr() % 256
    values, out = torch.zeros(100), torch.zeros(100, dtype=torch.int64)
    good = (values.data_ptr(), out.data_ptr(), 1, 100, 10, workspace, size, None)
    call = library.library.pointrend_uncertain
    assert call(*good) == 0
    wrong = {0: None, 1: None, 2: 0, 3: 0, 4: 0, 5: None, 6: size - 1}
    for position, value in wrong.items():
        assert call(*good[:position], value, *good[position + 1 :]) == 1, position
    assert call(*good[:4], 101, *good[5:]) == 1
    assert call(*good[:5], workspace + 8, *good[6:]) == 1
    assert call(*good[:2], 65536, *good[3:]) == 1


def test_workspace_is_a_closed_form(library: EmulatedKernels) -> None:
    """Per row: the state and 2048 bins, and 8 bytes for each 1024 cells; each part 256-aligned."""

    def up(size: int) -> int:
        return -(-size // 256) * 256

    workspace = library.library.pointrend_uncertain_workspace
    for n, length in ((1, 1), (1, 1025), (3, 2048), (1, 2**31 - 1), (65535, 4096)):
        expected = up(n * 4 * 2050) + up(n * 8 * -(-length // 1024))
        assert workspace(n, length) == expected
    assert [workspace(*shape) for shape in ((0, 5), (5, 0), (-1, 5), (65536, 5))] == [0] * 4


@pytest.mark.parametrize("mistake", [0, 1])
def test_the_emulator_reports_threads_that_part(library: EmulatedKernels, mistake: int) -> None:
    assert library.library.emulator_mistake(mistake) == 719
    assert library.uncertain(torch.tensor([[1.0, 2.0]]), 1).tolist() == [[1]]  # and goes on


def test_a_missing_barrier_shows_in_the_order_of_threads(library: EmulatedKernels) -> None:
    def run(barrier: bool, backwards: bool) -> list[int]:
        out = (ctypes.c_uint32 * 128)()
        library.backwards(backwards)
        assert library.library.emulator_neighbours(out, int(barrier)) == 0
        library.backwards(False)
        return list(out)

    assert run(True, False) == run(True, True) == [(i + 64) % 128 + 1 for i in range(128)]
    assert run(False, False) != run(False, True)


def test_the_comparison_notices_another_grid(library: EmulatedKernels, tmp_path: Path) -> None:
    """Half a cell off, as with align_corners or a forgotten 0.5, is far beyond the tolerance."""
    generator = torch.Generator().manual_seed(8)
    features = torch.randn((2, 3, 9, 16), generator=generator)
    points = torch.rand((2, 50, 2), generator=generator)
    shifted = library.sample(features, points + 0.5 / 16)
    assert (shifted - point_sample(features, points)).abs().max() > 100 * CLOSE
