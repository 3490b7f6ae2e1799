"""Pictures on the canvas: geometry, the resize and the normalisation of detectron2."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.canvas import (
    batch_of,
    check_image,
    fit,
    fitted_hw,
    from_rgb,
    normalise,
    resize_image,
)
from tests.fixtures.tiny_bundle import MEAN, STD, colour_picture, tiny_manifest

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)


# --- geometry -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(picture=sizes, size=sizes)
def test_fitted_is_the_largest_inside_with_the_aspect_kept(
    picture: tuple[int, int], size: tuple[int, int]
) -> None:
    height, width = fitted_hw(picture, size)
    assert 1 <= height <= size[0] and 1 <= width <= size[1]
    assert height == size[0] or width == size[1]  # nothing larger fits
    scale = min(Fraction(size[0], picture[0]), Fraction(size[1], picture[1]))
    for found, exact in ((height, picture[0] * scale), (width, picture[1] * scale)):
        assert abs(found - exact) <= Fraction(1, 2) or found == 1  # rounded, or the least there is


@settings(deadline=None)
@given(picture=sizes)
def test_fitting_into_its_own_size_changes_nothing(picture: tuple[int, int]) -> None:
    assert fitted_hw(picture, picture) == picture


@settings(deadline=None)
@given(picture=sizes, size=sizes)
def test_fitting_twice_is_fitting_once(picture: tuple[int, int], size: tuple[int, int]) -> None:
    once = fitted_hw(picture, size)
    assert fitted_hw(once, once) == once


@pytest.mark.parametrize(
    ("picture", "size", "expected"),
    [
        ((480, 640), (1024, 2048), (1024, 1365)),
        ((1080, 1920), (720, 1280), (720, 1280)),
        ((1, 5000), (32, 48), (1, 48)),
        ((5000, 1), (32, 48), (32, 1)),
        ((2, 3), (5, 100), (5, 8)),  # 7.5 is rounded up
        ((3, 4), (1, 100), (1, 1)),
    ],
)
def test_known_sizes(
    picture: tuple[int, int], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted_hw(picture, size) == expected


# --- resize and normalise -----------------------------------------------------------------------


@pytest.mark.parametrize("hw", [(10, 15), (90, 101), (24, 7)])
def test_resize_is_pillows_bilinear_in_either_channel_order(hw: tuple[int, int]) -> None:
    image = colour_picture(24, 36)
    expected = np.asarray(Image.fromarray(image).resize(hw[::-1], Image.Resampling.BILINEAR))
    assert np.array_equal(resize_image(image, hw), expected)
    assert np.array_equal(resize_image(image[:, :, ::-1], hw), expected[:, :, ::-1])
    nearest = np.asarray(Image.fromarray(image).resize(hw[::-1], Image.Resampling.NEAREST))
    assert not np.array_equal(expected, nearest)


def test_no_resampling_at_the_pictures_own_size() -> None:
    image = colour_picture(24, 36)
    assert resize_image(image, (24, 36)) is image


def test_normalisation_is_detectron2s_to_the_bit() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1).float()
    expected = (planes - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    found = normalise(image, tiny_manifest().preprocess)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.numpy())
    reciprocal = (planes - torch.tensor(MEAN).view(3, 1, 1)) * (1 / torch.tensor(STD)).view(3, 1, 1)
    assert not np.array_equal(found, reciprocal.numpy())  # one rounding away is already seen


# --- the canvas ---------------------------------------------------------------------------------


def test_padding_is_zero_after_normalisation() -> None:
    manifest = tiny_manifest((30, 40))
    fitted = fit(colour_picture(60, 60), manifest)
    assert fitted.picture_hw == (60, 60)
    assert fitted.fitted_hw == (30, 30)
    assert fitted.array.shape == (3, 32, 64)
    assert (fitted.array[:, 30:] == 0).all() and (fitted.array[:, :, 30:] == 0).all()
    inside = normalise(resize_image(colour_picture(60, 60), (30, 30)), manifest.preprocess)
    assert np.array_equal(fitted.array[:, :30, :30], inside)


def test_in_graph_keeps_bytes_and_says_the_extent() -> None:
    manifest = tiny_manifest((30, 40), location="in-graph")
    fitted = fit(colour_picture(60, 60), manifest)
    assert fitted.array.shape == (32, 64, 3) and fitted.array.dtype == np.uint8
    assert np.array_equal(fitted.array[:30, :30], resize_image(colour_picture(60, 60), (30, 30)))
    assert not fitted.array[30:].any() and not fitted.array[:, 30:].any()
    batch = batch_of([fitted], manifest)
    assert batch["extent"].tolist() == [[30, 30]] and batch["extent"].dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(
    picture=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_any_picture_lands_on_any_canvas(picture: tuple[int, int], size: tuple[int, int]) -> None:
    manifest = tiny_manifest(size)
    fitted = fit(np.full((*picture, 3), 255, np.uint8), manifest)
    occupied = (fitted.array != 0).all(axis=0)
    height, width = fitted.fitted_hw
    assert occupied[:height, :width].all() and occupied.sum() == height * width


def test_from_rgb_follows_the_recipe() -> None:
    rgb = np.array([[[1, 2, 3]]], np.uint8)
    assert from_rgb(rgb, tiny_manifest(channel_order="BGR")).tolist() == [[[3, 2, 1]]]
    assert from_rgb(rgb, tiny_manifest(channel_order="RGB")).tolist() == [[[1, 2, 3]]]


def test_a_short_batch_repeats_its_last_picture() -> None:
    manifest = tiny_manifest(batch=3)
    first, last = (fit(colour_picture(20, 30, seed), manifest) for seed in (1, 2))
    batch = batch_of([first, last], manifest)["image"]
    assert batch.shape == (3, 3, 32, 64)
    assert np.array_equal(batch[0], first.array)
    assert np.array_equal(batch[1], last.array) and np.array_equal(batch[2], last.array)
    for count in (0, 4):
        with pytest.raises(DeployError, match=f"1 to 3 pictures, not {count}"):
            batch_of([first] * count, manifest)


# --- arrays that are no pictures ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        (np.zeros((4, 5), np.uint8), "np.repeat"),
        (np.zeros((4, 5, 4), np.uint8), "alpha"),
        (np.zeros((3, 4, 5), np.uint8), "transpose"),
        (np.zeros((4, 5, 3), np.float32), "uint8"),
        (np.zeros((4, 5, 3), np.int64), "uint8"),
        (np.zeros((2, 4, 5, 3), np.uint8), "list of such arrays"),
        (np.zeros((4, 0, 3), np.uint8), ""),
        ([[1, 2, 3]], "read_picture"),
        ("picture.jpg", "read_picture"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), "read_picture"),
    ],
)
def test_refused_arrays_come_with_the_way_to_convert_them(image: Any, hint: str) -> None:
    with pytest.raises(DeployError) as caught:
        check_image(image)
    assert hint in caught.value.hint


def test_the_hint_for_grey_works() -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert check_image(np.repeat(grey[:, :, None], 3, axis=2)).shape == (4, 5, 3)
