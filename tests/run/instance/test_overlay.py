"""Drawn instances: what is tinted, what is outlined, and where the letters go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pointrend_deploy.recipe.instance import InstanceClassesSpec
from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.run.instance.masks import paste_mask
from pointrend_deploy.run.instance.overlay import OPACITY, instance_overlay, outline, thing_colours
from tests.fixtures.tiny_bundle import colour_picture
from tests.fixtures.tiny_instances import things_recipe

NAMES = things_recipe().classes.names
COLOURS = thing_colours(things_recipe().classes)
HW = (400, 600)


def things(boxes: Any, classes: Any, scores: Any, hw: tuple[int, int] = HW) -> Instances:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    full = np.ones((28, 28), np.float32)
    patches = tuple(paste_mask(full, box, hw) for box in boxes)
    return Instances(boxes, np.array(scores, np.float32), np.array(classes), hw, patches)


def test_colours() -> None:
    assert COLOURS.tolist() == [list(colour) for colour in things_recipe().classes.colours]
    found = thing_colours(InstanceClassesSpec(names=tuple(map(str, range(80)))))
    assert found.dtype == np.uint8 and found.shape == (80, 3)
    assert len(np.unique(found, axis=0)) == 80
    assert (found.max(axis=1) == 255).all()  # none is dark
    near = found[:8].astype(int)
    assert min(np.abs(a - b).max() for i, a in enumerate(near) for b in near[:i]) > 50


@pytest.mark.parametrize("width", [1, 2, 5])
def test_outline_is_what_lies_near_the_edge(width: int) -> None:
    covered = np.zeros((30, 40), np.bool_)
    covered[3:27, 5:] = True
    covered[10:12, 20] = False
    line = outline(covered, width)
    assert not (line & ~covered).any()
    for row in range(30):
        for column in range(40):
            rows = slice(max(row - width, 0), row + width + 1)
            columns = slice(max(column - width, 0), column + width + 1)
            window = covered[rows, columns]
            inner = window.all() and window.size == (2 * width + 1) ** 2
            assert line[row, column] == (covered[row, column] and not inner)


def test_masks_are_tinted_and_outlined() -> None:
    rgb = colour_picture(*HW)
    found = things([[150, 100, 350, 300]], [1], [0.9])
    out = instance_overlay(rgb, found, NAMES, COLOURS)
    assert out.shape == rgb.shape and out.dtype == np.uint8
    inner = (slice(105, 295), slice(155, 345))
    expected = (1 - OPACITY) * rgb[inner] + OPACITY * COLOURS[1]
    assert np.abs(out[inner] - expected).max() <= 2
    assert (out[100:300, 150:152] == COLOURS[1]).all()
    assert (out[298:300, 150:350] == COLOURS[1]).all()
    assert np.array_equal(out[301:], rgb[301:]) and np.array_equal(out[:60], rgb[:60])
    assert np.array_equal(out[:, 351:], rgb[:, 351:])
    label = out[60:100, 150:350]
    assert (label == COLOURS[1]).all(axis=2).any() and not np.array_equal(
        label, rgb[60:100, 150:350]
    )


def test_the_score_decides_what_is_drawn() -> None:
    rgb = colour_picture(*HW)
    boxes = [[10, 60, 180, 200], [220, 60, 390, 200], [420, 60, 590, 200]]
    found = things(boxes, [0, 1, 2], [0.9, 0.5, 0.2])

    def drawn(above: float) -> list[bool]:
        out = instance_overlay(rgb, found, NAMES, COLOURS, above)
        return [bool((out[100, int(x) + 50] != rgb[100, int(x) + 50]).any()) for x, *_ in boxes]

    assert drawn(0.0) == [True, True, True]
    assert drawn(0.5) == [True, True, False]
    assert drawn(0.500001) == [True, False, False]
    assert drawn(1.0) == [False, False, False]
    assert np.array_equal(instance_overlay(rgb, found, NAMES, COLOURS, 1.0), rgb)


def test_the_best_lies_on_top_and_neighbours_differ() -> None:
    rgb = np.zeros((*HW, 3), np.uint8)
    found = things([[100, 100, 300, 300], [200, 100, 400, 300]], [0, 0], [0.9, 0.8])
    out = instance_overlay(rgb, found, NAMES, COLOURS).astype(int)
    alone, shared, other = out[200, 150], out[200, 250], out[200, 350]
    assert np.abs(alone - other).max() > 10
    over = OPACITY * COLOURS[0] + (1 - OPACITY) * other
    under = other + (1 - OPACITY) * alone
    assert np.abs(shared - over).max() <= 2 < np.abs(shared - under).max()


def test_labels_do_not_cover_one_another() -> None:
    rgb = np.zeros((*HW, 3), np.uint8)
    one = things([[100, 100, 300, 300]], [0], [0.9])
    two = things([[100, 100, 300, 300], [104, 103, 300, 300]], [0, 1], [0.9, 0.8])
    first = (instance_overlay(rgb, one, NAMES, COLOURS)[70:99] == COLOURS[0]).all(axis=2)
    both = (instance_overlay(rgb, two, NAMES, COLOURS)[70:99] == COLOURS[0]).all(axis=2)
    assert first.any() and np.array_equal(first, both)


@pytest.mark.parametrize("hw", [(1, 1), (1, 700), (700, 1), (9, 5), (90, 130), (399, 20)])
def test_small_pictures_are_drawn_enlarged(hw: tuple[int, int]) -> None:
    rgb = colour_picture(*hw)
    found = things([[0, 0, hw[1], hw[0]]], [1], [0.9], hw)
    out = instance_overlay(rgb, found, NAMES, COLOURS)
    factor = out.shape[0] // hw[0]
    assert out.shape == (factor * hw[0], factor * hw[1], 3)
    assert factor == 1 if max(hw) >= 400 else max(out.shape) >= 400
    empty = things([], [], [], hw)
    plain = instance_overlay(rgb, empty, NAMES, COLOURS)
    assert np.array_equal(plain[::factor, ::factor], rgb) and not np.array_equal(plain, out)


def test_names_of_any_length_and_script() -> None:
    rgb = colour_picture(*HW)
    found = things([[100, 100, 300, 300], [0, 0, 9, 9]], [0, 1], [0.9, 0.8])
    for names in (("n" * 300, ""), ("Ampel (gelb)", "自転車"), ("é\n", "\t")):
        out = instance_overlay(rgb, found, names, COLOURS)
        assert out.shape == rgb.shape
        assert np.array_equal(out[320:], rgb[320:])


def test_the_picture_given_stays_as_it_is() -> None:
    rgb = colour_picture(*HW)
    before = rgb.copy()
    instance_overlay(rgb, things([[0, 0, 600, 400]], [0], [0.9]), NAMES, COLOURS)
    assert np.array_equal(rgb, before)
