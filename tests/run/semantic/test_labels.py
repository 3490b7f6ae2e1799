"""Labels at the picture's size: PyTorch's resize and argmax, in little memory."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.semantic import labels as postprocess
from pointrend_deploy.run.semantic.labels import (
    labels_at_picture_size,
    resize_argmax,
    resize_nearest,
)

HW = tuple[int, int]
NEAR_TIE = 4e-6
"""Two classes closer than this may change places: values up to 5 pass through nine float32
roundings (2.4e-7 each), and PyTorch may fuse a multiplication with an addition."""
sides = st.tuples(st.integers(1, 40), st.integers(1, 40))


def logits_of(shape: tuple[int, int, int], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def torch_labels(logits: Any, out_hw: HW, **options: bool) -> tuple[Any, Any]:
    """PyTorch's labels, and by how much the best class leads the second."""
    tensor = torch.from_numpy(logits)[None]
    resized = F.interpolate(tensor, size=out_hw, mode="bilinear", **options)[0]
    best = resized.topk(2, dim=0).values
    return resized.argmax(0).numpy(), (best[0] - best[1]).numpy()


@settings(max_examples=80, deadline=None)
@given(hw=sides, out_hw=sides, classes=st.integers(2, 21), seed=st.integers(0, 99))
def test_equals_pytorch_but_for_near_ties(hw: HW, out_hw: HW, classes: int, seed: int) -> None:
    logits = logits_of((classes, *hw), seed)
    expected, lead = torch_labels(logits, out_hw)
    found = resize_argmax(logits, out_hw)
    assert found.dtype == np.uint8 and found.shape == out_hw
    assert lead[found != expected].max(initial=0) <= NEAR_TIE


@pytest.mark.parametrize(
    ("hw", "out_hw"), [((128, 256), (270, 480)), ((200, 300), (57, 91)), ((64, 64), (64, 200))]
)
def test_equals_pytorch_at_larger_sizes(hw: HW, out_hw: HW) -> None:
    logits = logits_of((19, *hw))
    expected, lead = torch_labels(logits, out_hw)
    found = resize_argmax(logits, out_hw)
    assert lead[found != expected].max(initial=0) <= NEAR_TIE
    assert (found != expected).mean() < 1e-4


@pytest.mark.parametrize("wrong", [{"align_corners": True}, {"antialias": True}])
def test_another_resize_would_be_seen(wrong: dict[str, bool]) -> None:
    logits = logits_of((5, 40, 50))
    expected, lead = torch_labels(logits, (23, 31), **wrong)
    assert lead[resize_argmax(logits, (23, 31)) != expected].max() > 1e-2


def test_strips_do_not_show(monkeypatch: Any) -> None:
    logits = logits_of((4, 33, 29))
    whole = resize_argmax(logits, (71, 83))
    monkeypatch.setattr(postprocess, "_STRIP_VALUES", 90)
    assert np.array_equal(resize_argmax(logits, (71, 83)), whole)


@pytest.mark.parametrize("out_hw", [(7, 9), (14, 18), (3, 4)])
def test_ties_go_to_the_lower_class(out_hw: HW) -> None:
    plane = logits_of((1, 7, 9))
    tied = np.concatenate([plane - 1, plane, plane, plane - 2])
    assert (resize_argmax(tied, out_hw) == 1).all()


def test_the_logits_given_are_left_as_they_are() -> None:
    logits = logits_of((3, 8, 8))
    before = logits.copy()
    for out_hw in ((8, 8), (16, 8), (8, 16), (5, 5)):
        resize_argmax(logits, out_hw)
    assert np.array_equal(logits, before)


def test_memory_stays_far_below_the_resized_logits() -> None:
    logits = logits_of((16, 64, 64))
    tracemalloc.start()
    resize_argmax(logits, (1200, 1600))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    resized_bytes = 16 * 1200 * 1600 * 4
    assert peak < resized_bytes / 8


@settings(deadline=None)
@given(hw=sides, out_hw=sides)
def test_nearest_takes_the_cell_that_holds_the_pixels_centre(hw: HW, out_hw: HW) -> None:
    labels = np.arange(hw[0] * hw[1]).reshape(hw) % 251
    found = resize_nearest(labels.astype(np.uint8), out_hw)
    rows, columns = (
        [int(Fraction(2 * i + 1, 2) * n // m) for i in range(m)]
        for n, m in zip(hw, out_hw, strict=True)
    )
    assert np.array_equal(found, labels[np.ix_(rows, columns)])


def test_nearest_is_pytorchs_nearest_exact_and_not_its_nearest() -> None:
    labels = np.random.default_rng(0).integers(0, 9, (30, 40), dtype=np.uint8)
    tensor = torch.from_numpy(labels)[None, None].float()
    for mode, same in (("nearest-exact", True), ("nearest", False)):
        other = F.interpolate(tensor, size=(17, 23), mode=mode)[0, 0].numpy()
        assert np.array_equal(resize_nearest(labels, (17, 23)), other) is same


# --- which way ----------------------------------------------------------------------------------


def canvas() -> tuple[Any, Any]:
    logits = logits_of((3, 32, 64))
    return logits.argmax(0).astype(np.uint8), logits


def test_exact_where_the_picture_was_not_resized() -> None:
    labels, logits = canvas()
    for given_logits in (None, logits):
        found, how = labels_at_picture_size(labels, given_logits, (30, 40), (30, 40))
        assert how == "exact"
        assert np.array_equal(found, labels[:30, :40])
    found, how = labels_at_picture_size(None, logits, (30, 40), (30, 40))
    assert how == "exact" and np.array_equal(found, labels[:30, :40])


def test_bilinear_logits_of_the_fitted_area_only() -> None:
    labels, logits = canvas()
    logits[2, :, 40:] = 1000  # padding must not bleed into the picture's right edge
    found, how = labels_at_picture_size(labels, logits, (30, 40), (60, 80))
    assert how == "logits-bilinear"
    expected, lead = torch_labels(np.ascontiguousarray(logits[:, :30, :40]), (60, 80))
    assert lead[found != expected].max(initial=0) <= NEAR_TIE
    bled, lead = torch_labels(np.ascontiguousarray(logits[:, :30, :41]), (60, 82))
    assert not np.array_equal(found, bled[:, :80])


def test_nearest_labels_where_there_are_no_logits() -> None:
    labels, _ = canvas()
    found, how = labels_at_picture_size(labels, None, (30, 40), (60, 80))
    assert how == "labels-nearest"
    assert np.array_equal(found, labels[:30, :40].repeat(2, 0).repeat(2, 1))


def test_neither_labels_nor_logits() -> None:
    with pytest.raises(DeployError, match="neither labels nor logits"):
        labels_at_picture_size(None, None, (3, 4), (3, 4))
