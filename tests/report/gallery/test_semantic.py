from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.report.gallery.semantic import Points, make_item
from pointrend_deploy.report.gallery.tiles import DOT, GalleryItem, Tile, Worst
from pointrend_deploy.report.gallery.zoom import window_of

CLASSES = ClassesSpec(names=("a", "b"), colours=((255, 0, 0), (0, 0, 255)))


def pixels(tile: Tile) -> np.ndarray:
    kind, data = tile.uri.split(",", 1)
    assert kind in ("data:image/jpeg;base64", "data:image/png;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def grey(hw: tuple[int, int]) -> np.ndarray:
    return np.full((*hw, 3), 100, np.uint8)


def test_tiles_come_in_order_and_carry_their_labels() -> None:
    labels = {"coarse": np.zeros((8, 8), int), "truth": np.ones((8, 8), int)}
    item = make_item("x", grey((8, 8)), labels, CLASSES, [Points(np.array([0]), (4, 4))])
    assert [tile.label for tile in item.tiles] == ["picture", "coarse", "truth"]
    assert [tile.label for tile in item.points] == ["step0: 1 points"]
    assert item.zooms == ()
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
    dots = pixels(item.points[0])
    distance = np.abs(dots - np.array(DOT)).sum(axis=2)
    y, x = np.unravel_index(distance.argmin(), distance.shape)
    assert abs(y - (row + 0.5) * 8) <= 1.5
    assert abs(x - (column + 0.5) * 8) <= 1.5


def test_points_follow_the_fitted_area_and_leave_the_padding() -> None:
    # a 50x100 picture fitted as 32x64 on a 64x64 canvas: grid cells of 8 px
    chosen = Points(np.array([0, 8 * 3 + 7, 8 * 4]), (8, 8))  # the last lies in the padding
    item = make_item("x", grey((50, 100)), {}, CLASSES, [chosen], (64, 64), (32, 64))
    dots = np.abs(pixels(item.points[0]) - np.array(DOT)).sum(axis=2) < 150
    assert dots[:12, :12].any()
    assert dots[40:, 88:].any()
    assert dots.sum() < 12


def halves(hw: tuple[int, int], edge: int) -> np.ndarray:
    """Labels with class 1 right of a column."""
    labels = np.zeros(hw, np.uint8)
    labels[:, edge:] = 1
    return labels


def test_the_outline_with_most_differences_is_enlarged_pixel_by_pixel() -> None:
    truth, coarse = halves((128, 160), 100), halves((128, 160), 100)
    coarse[60:80, 97:100] = 1  # wrong beside the outline
    coarse[10:40, 10:40] = 1  # wrong too, more pixels, far from the outline
    labels = {"coarse": coarse, "PointRend": truth, "truth": truth}
    item = make_item("x", grey((128, 160)), labels, CLASSES, zoom=("coarse", "PointRend"))
    titles = [tile.label for tile in item.zooms]
    share = f"{100 * 60 / 1600:.1f}"
    assert titles[0] == "picture"
    assert titles[1] == f"coarse: {share} % of these pixels wrong"
    assert titles[2] == "PointRend: 0.0 % of these pixels wrong"
    assert titles[3] == "truth"
    times = item.zooms[1].width // 40
    assert times >= 4
    assert {(tile.width, tile.height) for tile in item.zooms} == {(40 * times, 40 * times)}
    shown = pixels(item.zooms[1])
    blocks = shown.reshape(40, times, 40, times, 3)
    assert (blocks == blocks[:, :1, :, :1]).all(), "each pixel is a square of one colour"
    blue = blocks[:, 0, :, 0, 2] > blocks[:, 0, :, 0, 0]
    assert blue.sum() - (pixels(item.zooms[2])[::times, ::times, 2] > 100).sum() == 60


def test_the_enlarged_part_is_framed_in_the_picture() -> None:
    truth = halves((128, 160), 100)
    coarse = truth.copy()
    coarse[60:80, 97:100] = 1
    item = make_item("x", grey((128, 160)), {"a": coarse, "b": truth}, CLASSES, zoom=("a", "b"))
    white = pixels(item.tiles[0]).min(axis=2) > 200
    rows, columns = np.nonzero(white)
    assert rows.max() - rows.min() + 1 == 40
    assert columns.max() - columns.min() + 1 == 40
    assert columns.min() <= 97 and columns.max() >= 99
    assert rows.min() <= 60 and rows.max() >= 79


def test_equal_answers_have_no_enlarged_part() -> None:
    labels = {"a": halves((64, 64), 30), "b": halves((64, 64), 30)}
    assert make_item("x", grey((64, 64)), labels, CLASSES, zoom=("a", "b")).zooms == ()


@pytest.mark.parametrize("hw", [(3, 200), (200, 3), (1, 1), (40, 40)])
def test_the_enlarged_part_of_a_narrow_picture_is_all_of_it(hw: tuple[int, int]) -> None:
    window = window_of(np.zeros(hw, np.uint8), np.ones(hw, np.uint8))
    assert window is not None
    assert (window.height, window.width) == (min(40, hw[0]), min(40, hw[1]))
    assert window.of(np.zeros(hw)).shape == (window.height, window.width)


def test_the_part_grows_with_a_picture_that_was_shrunk() -> None:
    window = window_of(halves((512, 640), 300), halves((512, 640), 310), fitted_hw=(256, 320))
    assert window is not None
    assert (window.height, window.width) == (80, 80)


def test_the_worst_are_kept_in_order_and_of_equals_the_earlier() -> None:
    def named(name: str) -> GalleryItem:
        return GalleryItem(name, (), ())

    worst = Worst(2)
    for name, badness in (("a", 0.1), ("b", 0.5), ("c", 0.1), ("d", 0.3), ("e", 0.3)):
        if worst.wants((0.0, badness)):
            worst.keep((0.0, badness), named(name))
    assert [item.name for item in worst.items] == ["b", "d"]
    assert worst.wants((1.0, 0.0)), "what goes beyond a limit comes first"
