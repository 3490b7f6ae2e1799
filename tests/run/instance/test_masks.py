"""Pasting in numpy against the reference's pasting in PyTorch: the same pixels, every one."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointrend_deploy.model.instance.boxes import MASK_THRESHOLD, paste_masks
from pointrend_deploy.run.instance import masks as paste_module
from pointrend_deploy.run.instance.masks import PackedPatches, paste_mask

BOXES: dict[str, tuple[float, float, float, float]] = {
    "inside": (5.3, 4.1, 33.8, 21.7),
    "whole picture": (0, 0, 40, 30),
    "corner": (31.2, 22.9, 40, 30),
    "one pixel": (7, 8, 8, 9),
    "less than a pixel": (7.3, 8.3, 7.7, 8.7),
    "between pixel centres": (7.55, 8.55, 8.45, 9.45),
    "partly outside": (-13.7, -2.25, 21.4, 33.9),
    "far larger than the picture": (-300, -200, 400, 300),
    "outside": (60, 60, 90, 90),
    "left of the picture": (-30, 3, -10, 20),
    "one float32 step wide": (7.5, 3, float(np.nextafter(np.float32(7.5), np.float32(8))), 20),
    "as small as floats get": (0, 0, 1e-45, 1e-45),
    "edges at pixel centres": (4.5, 3.5, 12.5, 9.5),
}


def whole(patch: paste_module.Patch, hw: tuple[int, int]) -> Any:
    top, left, covered = patch
    mask = np.zeros(hw, np.bool_)
    mask[top : top + covered.shape[0], left : left + covered.shape[1]] = covered
    return mask


def by_reference(mask: Any, box: Any, hw: tuple[int, int]) -> Any:
    pasted = paste_masks(torch.tensor(mask)[None], torch.tensor(box)[None], hw, MASK_THRESHOLD)
    return pasted[0].numpy()


def smooth(side: int, seed: int) -> Any:
    """Probabilities with long lines where they cross one half."""
    y, x = np.mgrid[:side, :side] / side
    a, b, c = np.random.default_rng(seed).uniform(2, 9, 3)
    return (0.5 + 0.5 * np.sin(a * x + c) * np.cos(b * y)).astype(np.float32)


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("side", [1, 7, 28, 224])
def test_the_reference_covers_the_same_pixels(name: str, side: int) -> None:
    box = np.array(BOXES[name], np.float32)
    for seed in range(5):
        for mask in (np.random.default_rng(seed).random((side, side), np.float32), smooth(side, 1)):
            found = whole(paste_mask(mask, box, (30, 40)), (30, 40))
            assert np.array_equal(found, by_reference(mask, box, (30, 40)))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 7, 14, 28, 56]),
    st.tuples(st.integers(1, 120), st.integers(1, 120)),
)
def test_any_box_in_any_picture(seed: int, side: int, hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    size = np.array([hw[1], hw[0]])
    corners = rng.uniform(-0.3, 1.3, (2, 2)) * size
    if seed % 3 == 0:
        corners = corners.round() + 0.5
    box = np.concatenate([corners.min(0), corners.max(0)]).astype(np.float32)
    if (box[2:] <= box[:2]).any():
        return
    mask = rng.random((side, side), np.float32)
    assert np.array_equal(whole(paste_mask(mask, box, hw), hw), by_reference(mask, box, hw))


@pytest.mark.parametrize("value", [0.5, float(np.nextafter(np.float32(0.5), np.float32(0)))])
def test_a_flat_mask_at_the_threshold(value: float) -> None:
    """Every sample is within a rounding of one half, so the order of rounding decides."""
    mask = np.full((28, 28), value, np.float32)
    box = np.array([3.1, 2.2, 97.3, 77.7], np.float32)
    found = whole(paste_mask(mask, box, (80, 100)), (80, 100))
    assert np.array_equal(found, by_reference(mask, box, (80, 100)))


def test_without_the_second_look_pixels_differ(monkeypatch: Any) -> None:
    """What the order of rounding is for: the plain one gives other pixels somewhere."""
    mask = np.full((28, 28), 0.5, np.float32)
    box = np.array([3.1, 2.2, 97.3, 77.7], np.float32)
    monkeypatch.setattr(paste_module, "_TOO_NEAR", 0.0)
    found = whole(paste_mask(mask, box, (80, 100)), (80, 100))
    assert not np.array_equal(found, by_reference(mask, box, (80, 100)))


def test_the_comparison_sees_a_quarter_of_a_pixel() -> None:
    mask, box = smooth(28, 2), np.array(BOXES["inside"], np.float32)
    found = whole(paste_mask(mask, box + np.float32(0.25), (30, 40)), (30, 40))
    assert not np.array_equal(found, by_reference(mask, box, (30, 40)))


def test_strips_change_nothing(monkeypatch: Any) -> None:
    mask, box = smooth(56, 3), np.array([-20, 3.3, 300.7, 180.1], np.float32)
    before = paste_mask(mask, box, (200, 333))
    monkeypatch.setattr(paste_module, "_STRIP_PIXELS", 700)
    assert np.array_equal(paste_mask(mask, box, (200, 333))[2], before[2])


@pytest.mark.parametrize("hw", [(1, 1), (1, 50), (50, 1)])
def test_pictures_one_pixel_wide(hw: tuple[int, int]) -> None:
    box = np.array([0, 0, hw[1], hw[0]], np.float32)
    assert whole(paste_mask(np.ones((28, 28), np.float32), box, hw), hw).all()
    assert not whole(paste_mask(np.zeros((28, 28), np.float32), box, hw), hw).any()


@pytest.mark.parametrize("hw", [(0, 0), (0, 3), (1, 1), (7, 9), (8, 8), (300, 211)])
def test_packed_patches_are_the_patches(hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    given: list[paste_module.Patch] = [(3, 4, rng.random(hw) < 0.5), (0, 1, rng.random(hw) < 0.9)]
    packed = PackedPatches(iter(given))
    assert len(packed) == 2 and len(packed[1:]) == 1 and len(PackedPatches([])) == 0
    for found in (list(packed), packed[:], [packed[0], packed[-1]]):
        for one, other in zip(found, given, strict=True):
            assert one[:2] == other[:2] and one[2].dtype == np.bool_
            assert one[2].shape == hw and np.array_equal(one[2], other[2])
    with pytest.raises(IndexError):
        packed[2]


def test_only_the_window_costs() -> None:
    """100 things in a picture of 24 megapixels: their windows, and seconds."""
    rng = np.random.default_rng(0)
    mask = smooth(224, 4)
    tracemalloc.start()
    started = time.process_time()
    corners = rng.uniform(0, 3000, (100, 2)) * [1.5, 1]
    boxes = np.concatenate([corners, corners + rng.uniform(10, 1000, (100, 2))], 1)
    patches = PackedPatches(paste_mask(mask, box, (4000, 6000)) for box in boxes.astype(np.float32))
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pixels = sum(covered.size for _, _, covered in patches)
    assert pixels > 1e7
    assert peak < pixels / 8 + 8e6
    assert seconds < 30
