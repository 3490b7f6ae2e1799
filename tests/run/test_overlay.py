"""Palettes, label maps and overlays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.run import overlay as overlay_module
from pointrend_deploy.run.overlay import (
    boundaries,
    class_colours,
    label_png,
    overlay,
    overlay_suffix,
    picture_bytes,
    voc_palette,
)
from tests.fixtures.tiny_bundle import colour_picture


def test_voc_palette() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0)}
    known |= {20: (0, 64, 128), 255: (224, 224, 192)}
    palette = voc_palette(256)
    for label, colour in known.items():
        assert tuple(palette[label]) == colour
    assert len(np.unique(palette, axis=0)) == 256


def test_colours_of_the_recipe_come_first() -> None:
    given = ((1, 2, 3), (4, 5, 6))
    assert class_colours(ClassesSpec(names=("a", "b"), colours=given)).tolist() == [
        list(colour) for colour in given
    ]
    assert np.array_equal(class_colours(ClassesSpec(names=("a", "b"))), voc_palette(2))


@pytest.mark.parametrize("count", [2, 19, 256])
def test_label_png_holds_class_numbers_and_colours(count: int) -> None:
    labels = np.random.default_rng(0).integers(0, count, (13, 17), dtype=np.uint8)
    image = Image.open(io.BytesIO(label_png(labels, voc_palette(count))))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), labels)
    assert np.array_equal(np.asarray(image.convert("RGB")), voc_palette(count)[labels])


def test_boundaries_are_one_pixel_wide() -> None:
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 1
    edge = boundaries(labels)
    assert edge[:, 2].all() and edge.sum() == 4
    assert boundaries(labels.T).sum() == 4
    assert not boundaries(np.zeros((3, 3), np.uint8)).any()
    assert boundaries(np.zeros((1, 1), np.uint8)).tolist() == [[False]]


def test_overlay_mixes_picture_and_colours(monkeypatch: Any) -> None:
    rgb = colour_picture(20, 30)
    labels = np.zeros((20, 30), np.uint8)
    labels[10:] = 1
    colours = np.array([[200, 0, 100], [0, 255, 0]], np.uint8)
    mixed = overlay(rgb, labels, colours, 0.25)
    expected = 0.75 * rgb + 0.25 * colours[labels]
    line = boundaries(labels)
    assert np.abs(mixed[~line] - expected[~line]).max() <= 0.51
    assert (mixed[line] == 255).all() and line.sum() == 30
    monkeypatch.setattr(overlay_module, "_STRIP_PIXELS", 70)
    assert np.array_equal(overlay(rgb, labels, colours, 0.25), mixed)
    swapped = overlay(rgb[:, :, ::-1], labels, colours, 0.25)
    assert np.abs(swapped[~line] - expected[~line]).max() > 5


def test_opacity_ends() -> None:
    rgb, labels = colour_picture(8, 8), np.ones((8, 8), np.uint8)
    assert np.array_equal(overlay(rgb, labels, voc_palette(2), 0.0), rgb)
    assert np.array_equal(overlay(rgb, labels, voc_palette(2), 1.0), voc_palette(2)[labels])


def test_overlay_files() -> None:
    rgb = colour_picture(40, 50)
    for suffix, kind, tolerance in ((".jpg", "JPEG", 12), (".png", "PNG", 0)):
        image = Image.open(io.BytesIO(picture_bytes(rgb, suffix)))
        assert image.format == kind
        assert np.abs(np.asarray(image).astype(int) - rgb).max() <= tolerance
    assert overlay_suffix((1024, 2048)) == ".jpg"
    assert overlay_suffix((1, 65535)) == ".png"
