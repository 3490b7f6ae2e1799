"""Pictures for the report of a semantic bundle: each side's labels, the truth, and the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.semantic.compare import ComparedLabels
from pointrend_deploy.parity.subdivision import replay
from pointrend_deploy.parity.subdivision.replay import bilinear
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.report.gallery.tiles import (
    GALLERY_PICTURES,
    HW,
    Array,
    GalleryItem,
    UInt8,
    dotted,
    make_tile,
    small_hw,
)
from pointrend_deploy.run.overlay import class_colours
from pointrend_deploy.run.semantic.labels import labels_at_picture_size

OPACITY = 0.68
"""Of the labels' colours over the picture."""
IGNORED = (0, 0, 0)
"""Colour of labels that are no class."""


@dataclass(frozen=True)
class Points:
    """The points of one subdivision step: flat indices (K,) on a grid over the padded canvas."""

    indices: Array
    grid_hw: HW


def make_item(
    name: str,
    rgb: UInt8,
    labels: Mapping[str, Array],
    classes: ClassesSpec,
    points: Sequence[Points] = (),
    canvas_hw: HW | None = None,
    fitted_hw: HW | None = None,
    caption: str = "",
) -> GalleryItem:
    """Make the tiles of one picture.

    Args:
        name: of the picture.
        rgb: (H, W, 3) uint8.
        labels: (H, W) labels by the label of their tile, in the order they are shown in.
        classes: names and colours; a label that is no class is drawn black.
        points: the points of each step; there is a tile for each.
        canvas_hw: size of the padded canvas that the grids cover; None for the picture's own.
        fitted_hw: size of the picture on the canvas; None for the picture's own.
        caption: a sentence below the tiles.
    """
    picture_hw = (rgb.shape[0], rgb.shape[1])
    small = small_hw(picture_hw)
    base = np.asarray(Image.fromarray(rgb).resize(small[::-1], Image.Resampling.BILINEAR))
    colours = class_colours(classes)
    tiles = [make_tile("picture", base)]
    seen: set[int] = set()
    for title, values in labels.items():
        seen |= set(np.unique(values).tolist())
        tiles.append(make_tile(title, _tinted(base, _nearest(values, small), colours)))
    for step, chosen in enumerate(points):
        title = f"points of step{step} ({len(chosen.indices):,})"
        where = _positions(chosen, canvas_hw or picture_hw, fitted_hw or picture_hw, small)
        tiles.append(make_tile(title, dotted(base, where)))
    legend = tuple(
        (classes.names[label], "#{:02x}{:02x}{:02x}".format(*colours[label].tolist()))
        for label in sorted(seen)
        if label < len(classes.names)
    )
    if any(label >= len(classes.names) for label in seen):
        legend += (("not labelled", "#{:02x}{:02x}{:02x}".format(*IGNORED)),)
    return GalleryItem(name, tuple(tiles), legend, caption)


class LabelGallery:
    """Draws the first pictures of a semantic bundle's comparison.

    Args:
        manifest: the bundle's manifest.
        limit: number of pictures to draw.
    """

    def __init__(self, manifest: Manifest, limit: int = GALLERY_PICTURES) -> None:
        self.items: list[GalleryItem] = []
        self._manifest, self._limit = manifest, limit

    def __call__(self, seen: ComparedLabels) -> None:
        """Draw one picture: coarse labels, the bundle's labels, the truth, and the points.

        Pictures past the limit are not drawn.
        """
        if len(self.items) >= self._limit:
            return
        item, ours, stages = seen.item, seen.outputs, seen.stages
        recipe = self._manifest.semantic
        refined = recipe.point_head is not None
        labels: dict[str, Array] = {}
        if refined and "coarse" in stages:
            whole = bilinear(stages["coarse"][0], stages["logits"].shape[2:])
            coarse = whole.argmax(axis=0).astype(np.uint8)
            labels["coarse"] = _own_size(coarse, None, item.fitted)
        labels["PointRend" if refined else "labels"] = _own_size(
            ours["labels"][0] if "labels" in ours else None,
            ours["logits"][0] if "logits" in ours else None,
            item.fitted,
        )
        if item.truth is not None:
            labels["truth"] = item.truth
        self.items.append(
            make_item(
                item.pair.name,
                item.rgb,
                labels,
                recipe.classes,
                _points(stages),
                self._manifest.canvas.padded_hw,
                item.fitted.fitted_hw,
            )
        )


def _points(stages: Mapping[str, Array]) -> list[Points]:
    if "coarse" not in stages:
        return []
    height, width = stages["coarse"].shape[2:]
    return [
        Points(
            stages[f"step{step}.indices"][0], (height * 2 ** (step + 1), width * 2 ** (step + 1))
        )
        for step in range(replay.num_steps(stages))
    ]


def _own_size(labels: UInt8 | None, logits: Array | None, fitted: Fitted) -> Array:
    found, _ = labels_at_picture_size(labels, logits, fitted.fitted_hw, fitted.picture_hw)
    return found


def _nearest(labels: Array, hw: HW) -> Array:
    rows = (2 * np.arange(hw[0]) + 1) * labels.shape[0] // (2 * hw[0])
    columns = (2 * np.arange(hw[1]) + 1) * labels.shape[1] // (2 * hw[1])
    return np.asarray(labels[rows][:, columns])


def _tinted(base: UInt8, labels: Array, colours: UInt8) -> UInt8:
    table = np.full((256, 3), IGNORED, np.uint8)
    table[: len(colours)] = colours
    tint = table[labels.clip(0, 255)]
    return np.asarray((1 - OPACITY) * base + OPACITY * tint + 0.5).astype(np.uint8)


def _positions(points: Points, canvas_hw: HW, fitted_hw: HW, small: HW) -> Array:
    """Return x, y in pixels of the tile, (M, 2), of the points inside the picture."""
    height, width = points.grid_hw
    y = (points.indices // width + 0.5) / height * canvas_hw[0] / fitted_hw[0]
    x = (points.indices % width + 0.5) / width * canvas_hw[1] / fitted_hw[1]
    inside = (x < 1) & (y < 1)
    return np.stack((x[inside] * small[1], y[inside] * small[0]), axis=1)
