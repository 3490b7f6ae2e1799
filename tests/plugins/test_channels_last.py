"""Sampling of features whose channels come last, under the emulator: equal to the other layout."""

from __future__ import annotations

import math

import pytest
import torch

from tests.plugins.emulated import CHANNELS_LAST, EmulatedKernels


@pytest.mark.parametrize("channels", [1, 8, 63, 64, 65, 150])
@pytest.mark.parametrize("count", [1, 32, 33, 100])
def test_the_layout_changes_nothing(kernels: EmulatedKernels, channels: int, count: int) -> None:
    """About the channels of one read and those of a block, and about the points of a block."""
    generator = torch.Generator().manual_seed(channels)
    features = torch.randn((2, channels, 9, 14), generator=generator).half()
    points = torch.rand((2, count, 2), generator=generator) * 1.4 - 0.2
    sampled = kernels.sample_channels_last(features, points)
    assert torch.equal(sampled, kernels.sample(features, points))


def test_another_order_of_channels_is_noticed(library: EmulatedKernels) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn((1, 16, 5, 5), generator=generator).half()
    points = torch.rand((1, 7, 2), generator=generator)
    swapped = features.roll(1, dims=1)
    assert not torch.equal(
        library.sample_channels_last(swapped, points), library.sample(features, points)
    )


def test_cells_outside_are_never_read(library: EmulatedKernels) -> None:
    features = torch.full((1, 9, 4, 4), math.nan).half()
    features[..., 0, 0] = 2.0
    points = torch.tensor([[[0.0, 0.0], [1 / 16, 1 / 16], [math.nan, 0.5], [math.inf, 0.5]]])
    sampled = library.sample_channels_last(features, points)
    assert sampled[0].tolist() == [[0.5, 1.125, 0.0, 0.0]] * 9


def test_refuses_what_it_cannot_do(library: EmulatedKernels) -> None:
    room = torch.zeros(1024)
    at = room.data_ptr() + -room.data_ptr() % 16
    sample = library.library.pointrend_sample
    fine = (1, 9, 2, 2, 4, None)
    assert sample(at, CHANNELS_LAST, at + 1024, at + 2048, *fine) == 0
    assert sample(at + 2, CHANNELS_LAST, at + 1024, at + 2048, *fine) == 1
    assert sample(None, CHANNELS_LAST, at + 1024, at + 2048, *fine) == 1
    for wrong in ((0, 9, 2, 2, 4), (1, 9, 65536, 32768, 4), (1, 65535 * 64 + 1, 2, 2, 4)):
        assert sample(at, CHANNELS_LAST, at + 1024, at + 2048, *wrong, None) == 1
