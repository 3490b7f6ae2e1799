from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.report.gallery.semantic import Points, make_item
from pointrend_deploy.report.gallery.tiles import DOT, Tile

CLASSES = ClassesSpec(names=("a", "b"), colours=((255, 0, 0), (0, 0, 255)))


def pixels(tile: Tile) -> np.ndarray:
    kind, data = tile.uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def grey(hw: tuple[int, int]) -> np.ndarray:
    return np.full((*hw, 3), 100, np.uint8)


def test_tiles_come_in_order_and_carry_their_labels() -> None:
    labels = {"coarse": np.zeros((8, 8), int), "truth": np.ones((8, 8), int)}
    item = make_item("x", grey((8, 8)), labels, CLASSES, [Points(np.array([0]), (4, 4))])
    assert [tile.label for tile in item.tiles] == [
        "picture",
        "coarse",
        "truth",
        "points of step0 (1)",
    ]
    assert item.legend == (("a", "#ff0000"), ("b", "#0000ff"))


def test_labels_are_tinted_in_their_colour_and_ignored_ones_in_black() -> None:
    labels = np.zeros((24, 48), int)
    labels[:, 16:32] = 1
    labels[:, 32:] = 255
    tile = pixels(make_item("x", grey((24, 48)), {"truth": labels}, CLASSES).tiles[1])
    red, blue, black = tile[12, 8], tile[12, 24], tile[12, 40]
    assert red[0] > red[2] + 100
    assert blue[2] > blue[0] + 100
    assert black.max() < 60
    item = make_item("x", grey((24, 48)), {"t": labels}, CLASSES)
    assert [name for name, _ in item.legend] == ["a", "b", "not labelled"]


def test_large_pictures_are_made_smaller_and_small_ones_are_not() -> None:
    item = make_item("x", grey((1000, 2000)), {"t": np.zeros((1000, 2000), int)}, CLASSES)
    assert {(tile.width, tile.height) for tile in item.tiles} == {(400, 200)}
    assert pixels(item.tiles[1]).shape == (200, 400, 3)
    thin = make_item("x", grey((1, 3000)), {"t": np.zeros((1, 3000), int)}, CLASSES)
    assert (thin.tiles[0].width, thin.tiles[0].height) == (400, 1)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 9), (7, 15)])
def test_a_point_stands_where_its_cell_is(row: int, column: int) -> None:
    item = make_item(
        "x", grey((64, 128)), {}, CLASSES, [Points(np.array([row * 16 + column]), (8, 16))]
    )
    dots = pixels(item.tiles[1])
    distance = np.abs(dots - np.array(DOT)).sum(axis=2)
    y, x = np.unravel_index(distance.argmin(), distance.shape)
    assert abs(y - (row + 0.5) * 8) <= 1.5
    assert abs(x - (column + 0.5) * 8) <= 1.5


def test_points_follow_the_fitted_area_and_leave_the_padding() -> None:
    # a 50x100 picture fitted as 32x64 on a 64x64 canvas: grid cells of 8 px
    chosen = Points(np.array([0, 8 * 3 + 7, 8 * 4]), (8, 8))  # the last lies in the padding
    item = make_item("x", grey((50, 100)), {}, CLASSES, [chosen], (64, 64), (32, 64))
    dots = np.abs(pixels(item.tiles[1]) - np.array(DOT)).sum(axis=2) < 150
    assert dots[:12, :12].any()
    assert dots[40:, 88:].any()
    assert dots.sum() < 12
