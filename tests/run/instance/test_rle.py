"""The RLE of a patch against pycocotools, byte by byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from pointrend_deploy.run.instance.masks import encode


def by_pycocotools(covered: Any, top: int, left: int, hw: tuple[int, int]) -> Any:
    whole = np.zeros(hw, np.uint8)
    whole[top : top + covered.shape[0], left : left + covered.shape[1]] = covered
    return coco.encode(np.asfortranarray(whole))


def check(covered: Any, top: int, left: int, hw: tuple[int, int]) -> None:
    found = encode((top, left, covered), hw)
    expected = by_pycocotools(covered, top, left, hw)
    assert found["size"] == expected["size"]
    assert found["counts"].encode() == expected["counts"]


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_any_patch_anywhere(seed: int, hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(hw[0] + 1)), int(rng.integers(hw[1] + 1))
    high, wide = int(rng.integers(hw[0] - top + 1)), int(rng.integers(hw[1] - left + 1))
    if seed % 4 == 0:  # as high as the picture: runs go on from column to column
        top, high = 0, hw[0]
    check(rng.random((high, wide)) < rng.choice([0.05, 0.5, 0.95, 1.0]), top, left, hw)


@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (9, 1), (7, 9)])
@pytest.mark.parametrize("value", [False, True])
def test_full_and_empty_pictures(hw: tuple[int, int], value: bool) -> None:
    check(np.full(hw, value), 0, 0, hw)
    check(np.zeros((0, 0), np.bool_), 0, 0, hw)


def test_runs_of_millions() -> None:
    """Counts of many letters, and differences below zero."""
    hw = (4000, 6000)
    covered = np.ones((3999, 2500), np.bool_)
    covered[1000:1003, 17] = False
    check(covered, 1, 3000, hw)
    check(np.ones((4000, 3000), np.bool_), 0, 1000, hw)


def test_the_comparison_sees_one_pixel() -> None:
    covered = np.zeros((5, 6), np.bool_)
    covered[2, 3] = True
    other = covered.copy()
    other[2, 4] = True
    assert encode((1, 1, covered), (9, 9)) != encode((1, 1, other), (9, 9))
    decoded = coco.decode(dict(encode((1, 1, covered), (9, 9))))
    assert decoded.nonzero() == (np.array([3]), np.array([4]))
