"""Pictures for the report of a semantic bundle: each side's labels, the truth, and the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.gates import labels_limit
from pointrend_deploy.parity.semantic.compare import ComparedLabels, labels_at
from pointrend_deploy.parity.subdivision import replay
from pointrend_deploy.parity.subdivision.replay import bilinear
from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.report.gallery.tiles import (
    GALLERY_PICTURES,
    HW,
    Array,
    GalleryItem,
    Tile,
    UInt8,
    Worst,
    dotted,
    make_tile,
    small_hw,
)
from pointrend_deploy.report.gallery.zoom import Window, enlarged, framed, window_of
from pointrend_deploy.run.overlay import class_colours

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
    zoom: tuple[str, str] | None = None,
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
        zoom: two of ``labels``; the part where they differ most, near an outline of the second, is
            shown enlarged. None for no such part. Where ``labels`` has a ``truth``, the enlarged
            tiles tell the share of wrong pixels.
    """
    picture_hw = (rgb.shape[0], rgb.shape[1])
    small = small_hw(picture_hw)
    base = np.asarray(Image.fromarray(rgb).resize(small[::-1], Image.Resampling.BILINEAR))
    colours = class_colours(classes)
    window = None if zoom is None else window_of(labels[zoom[0]], labels[zoom[1]], fitted_hw)
    shown = base if window is None else framed(base, window, picture_hw)
    tiles = [make_tile("picture", shown)]
    tiles += [
        make_tile(title, _tinted(base, _nearest(values, small), colours))
        for title, values in labels.items()
    ]
    dots = []
    for step, chosen in enumerate(points):
        where = _positions(chosen, canvas_hw or picture_hw, fitted_hw or picture_hw, small)
        dots.append(make_tile(f"step{step}: {len(chosen.indices):,} points", dotted(base, where)))
    seen = {label for values in labels.values() for label in np.unique(values).tolist()}
    legend = tuple(
        (classes.names[label], "#{:02x}{:02x}{:02x}".format(*colours[label].tolist()))
        for label in sorted(seen)
        if label < len(classes.names)
    )
    if any(label >= len(classes.names) for label in seen):
        legend += (("not labelled", "#{:02x}{:02x}{:02x}".format(*IGNORED)),)
    zooms = () if window is None else _zooms(window, rgb, labels, colours, len(classes.names))
    return GalleryItem(name, tuple(tiles), legend, caption, zooms, tuple(dots))


def _zooms(
    window: Window, rgb: UInt8, labels: Mapping[str, Array], colours: UInt8, num_classes: int
) -> tuple[Tile, ...]:
    """Enlarge one window of the picture and of every label map."""
    part = window.of(rgb)
    truth = window.of(labels["truth"]) if "truth" in labels else None
    tiles = [enlarged("picture", part)]
    for title, values in labels.items():
        found = window.of(values)
        wrong = ""
        if truth is not None and title != "truth" and (truth < num_classes).any():
            scored = truth < num_classes
            wrong = f": {100 * (found != truth)[scored].mean():.1f} % of these pixels wrong"
        tiles.append(enlarged(f"{title}{wrong}", _tinted(part, found, colours)))
    return tuple(tiles)


class LabelGallery:
    """Draws the worst pictures of a semantic bundle's comparison.

    First come pictures whose labels differ from PyTorch's by more than the limit, then those with
    the largest share of pixels that differ from the truth; without a truth, from PyTorch's.

    Args:
        manifest: the bundle's manifest.
        limit: number of pictures to draw.
    """

    def __init__(self, manifest: Manifest, limit: int = GALLERY_PICTURES) -> None:
        self._worst = Worst(limit)
        self._manifest = manifest

    @property
    def items(self) -> list[GalleryItem]:
        """The pictures drawn, the worst first."""
        return self._worst.items

    def __call__(self, seen: ComparedLabels) -> None:
        """Draw one picture if it is among the worst so far.

        Its tiles are coarse labels, the bundle's labels, the truth, and the points.
        """
        item, stages = seen.item, seen.stages
        logits = "logits" in seen.outputs
        ours, _ = labels_at(seen.outputs, item.fitted, logits)
        theirs, _ = labels_at(stages, item.fitted, logits)
        badness = _badness(ours, theirs, item.truth, len(self._manifest.semantic.classes.names))
        if not self._worst.wants(badness):
            return
        recipe = self._manifest.semantic
        refined = recipe.point_head is not None
        labels: dict[str, Array] = {}
        if refined and "coarse" in stages:
            whole = bilinear(stages["coarse"][0], stages["logits"].shape[2:])[None]
            coarse = {"logits": whole, "labels": whole.argmax(axis=1).astype(np.uint8)}
            labels["coarse"], _ = labels_at(coarse, item.fitted, logits)
        labels["PointRend" if refined else "labels"] = ours
        if item.truth is not None:
            labels["truth"] = item.truth
        drawn = make_item(
            item.pair.name,
            item.rgb,
            labels,
            recipe.classes,
            _points(stages),
            self._manifest.canvas.padded_hw,
            item.fitted.fitted_hw,
            zoom=("coarse", "PointRend") if "coarse" in labels else None,
        )
        self._worst.keep(badness, drawn)


def _badness(
    ours: Array, theirs: Array, truth: Array | None, num_classes: int
) -> tuple[float, float]:
    """Return how bad a picture is, to be compared in order.

    Returns:
        The share of pixels that differ from PyTorch's where that is beyond the limit, 0 elsewhere;
        and the share of scored pixels that differ from the truth, or from PyTorch's without one.
    """
    unlike = float((ours != theirs).mean())
    beyond = unlike if 1.0 - unlike < labels_limit(ours.size) else 0.0
    if truth is None or not (truth < num_classes).any():
        return beyond, unlike
    return beyond, float((ours != truth)[truth < num_classes].mean())


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
