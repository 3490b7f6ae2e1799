"""Pictures for the report: coarse beside PointRend beside truth, and where the points went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.parity.semantic.compare import Candidate, Reference
from pointrend_deploy.parity.subdivision import replay
from pointrend_deploy.parity.subdivision.replay import bilinear
from pointrend_deploy.pictures.canvas import Fitted, batch_of, fit, from_rgb
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.report.gallery.tiles import GalleryItem, dotted, make_tile, small_hw
from pointrend_deploy.run.overlay import class_colours
from pointrend_deploy.run.semantic.labels import labels_at_picture_size
from pointrend_deploy.truth.label_maps import Pair, read_labels

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]
HW = tuple[int, int]
OPACITY = 0.68
IGNORED = (0, 0, 0)


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
    """The tiles of one picture.

    Args:
        name: of the picture.
        rgb: (H, W, 3) uint8.
        labels: (H, W) labels by what the tile is called, in the order they stand.
        classes: names and colours; a label outside them is drawn black (ignored).
        points: chosen points, a tile for each step.
        canvas_hw: size of the padded canvas the grids cover; the picture's when absent.
        fitted_hw: the picture's area on the canvas; the picture's own size when absent.
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


def collect(
    candidate: Candidate, reference: Reference, pictures: Sequence[Pair], limit: int = 6
) -> list[GalleryItem]:
    """Run both sides on the first pictures and make their tiles.

    Args:
        candidate: the bundle's runner, whose labels are the tile called PointRend.
        reference: the torch runner, which knows the coarse logits and the points.
        pictures: what ``dataset.pairs`` found.
        limit: most pictures.

    Raises:
        DeployError: a picture or label map cannot be read.
    """
    manifest = candidate.bundle.manifest
    classes = manifest.semantic.classes
    items = []
    for pair in pictures[:limit]:
        rgb = read_picture(pair.picture).rgb
        fitted = fit(from_rgb(rgb, manifest), manifest)
        inputs = batch_of([fitted], manifest)
        ours = candidate.infer(inputs)
        stages = {name: np.asarray(v)[:1] for name, v in reference.canvas_stages(inputs).items()}
        refined = manifest.semantic.point_head is not None
        labels: dict[str, Array] = {}
        if refined and "coarse" in stages:
            whole = bilinear(stages["coarse"][0], stages["logits"].shape[2:])
            labels["coarse"] = _own_size(whole.argmax(axis=0).astype(np.uint8), None, fitted)
        exported = ours.get("labels")
        labels["PointRend" if refined else "labels"] = _own_size(
            None if exported is None else exported[0],
            ours["logits"][0] if "logits" in ours else None,
            fitted,
        )
        if pair.labels is not None:
            labels["truth"] = read_labels(
                pair.labels, len(classes.names), classes.ignore_label, pair.coding
            )
        items.append(
            make_item(
                pair.name,
                rgb,
                labels,
                classes,
                _points(stages),
                manifest.canvas.padded_hw,
                fitted.fitted_hw,
            )
        )
    return items


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
    """(M, 2) x, y in tile pixels of the points inside the picture."""
    height, width = points.grid_hw
    y = (points.indices // width + 0.5) / height * canvas_hw[0] / fitted_hw[0]
    x = (points.indices % width + 0.5) / width * canvas_hw[1] / fitted_hw[1]
    inside = (x < 1) & (y < 1)
    return np.stack((x[inside] * small[1], y[inside] * small[0]), axis=1)
