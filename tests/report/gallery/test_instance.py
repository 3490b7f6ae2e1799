"""Tiles of instances: the enlarged outline, its edges, and where points are drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from pointrend_deploy.recipe.instance import InstanceClassesSpec
from pointrend_deploy.report.gallery.instance import _points, make_instance_item
from pointrend_deploy.report.gallery.tiles import DOT
from pointrend_deploy.run.instance.instances import Instances
from tests.report.gallery.test_semantic import grey, pixels

HW = (96, 128)
RECIPE: Any = SimpleNamespace(
    classes=InstanceClassesSpec(names=("a", "b"), colours=((255, 0, 0), (0, 0, 255)))
)


def thing(mask: np.ndarray, score: float = 0.9) -> Instances:
    """One instance of class a with this mask, (H, W)."""
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return Instances(
        boxes=np.array([box], np.float32),
        scores=np.array([score], np.float32),
        classes=np.array([0]),
        hw=HW,
        patches=((0, 0, mask),),
    )


def upper(row: int) -> np.ndarray:
    mask = np.zeros(HW, np.bool_)
    mask[:row] = True
    return mask


def test_the_outline_where_the_masks_differ_is_enlarged() -> None:
    coarse = upper(60)
    coarse[57:60, 70:90] = False
    sides = {"coarse": thing(coarse), "fine": thing(upper(60))}
    item = make_instance_item("x", grey(HW), sides, RECIPE, zoom=("coarse", "fine"))
    assert [tile.label for tile in item.zooms] == ["picture", "coarse", "fine"]
    times = item.zooms[0].width // 40
    shown = [pixels(tile)[::times, ::times] for tile in item.zooms]
    assert {each.shape for each in shown} == {(40, 40, 3)}
    fine = shown[2][..., 0] > 150
    edge = int(fine[:, 0].sum())
    assert fine[:edge].all() and not fine[edge:].any(), "one straight edge"
    # the mask goes on above and beside the part: only its lower edge is outlined, in a lighter red
    lighter = shown[2][..., 1] > 120
    assert lighter[edge - 1].all()
    assert not lighter[: edge - 1].any()
    assert ((shown[1][..., 0] > 150) != fine).sum() == 60


def test_instances_below_the_least_score_are_not_drawn() -> None:
    sides = {"all": thing(upper(60), 0.4)}
    item = make_instance_item("x", grey(HW), sides, RECIPE)
    assert (pixels(item.tiles[0]) == pixels(item.tiles[1])).all()
    assert item.legend == () and item.zooms == ()


def test_points_of_every_step_lie_on_its_own_grid() -> None:
    """The cell in the middle of each grid is drawn in the middle of the box."""
    seen: Any = SimpleNamespace(
        stages={
            "step1.indices": np.array([[14 * 28 + 14]]),
            "step2.indices": np.array([[28 * 56 + 28]]),
            "mask_logits": np.zeros((1, 1, 56, 56), np.float32),
        },
        boxes=np.array([[32.0, 16.0, 96.0, 80.0]]),
        fitted=SimpleNamespace(fitted_hw=HW),
        reference=SimpleNamespace(hw=HW),
        rgb=grey(HW),
    )
    tiles = _points(seen)
    assert [tile.label.split(":")[0] for tile in tiles] == ["step1", "step2"]
    for tile, side in zip(tiles, (28, 56), strict=True):
        dots = pixels(tile)
        near = np.abs(dots - np.array(DOT)).sum(axis=2) < 150
        rows, columns = np.nonzero(near)
        scale = tile.width / (64 * 1.24 + 1)
        middle = (64 / 2 + 64 / side / 2 + 64 * 0.12) * scale
        assert abs(rows.mean() - middle) < 4
        assert abs(columns.mean() - middle) < 4
