"""Pictures for the report of an instance bundle: each side's masks, the truth, and the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.parity.instance.picture import Compared
from pointrend_deploy.recipe.instance import InstanceRecipe
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
from pointrend_deploy.run.instance.instances import Instances, probabilities
from pointrend_deploy.run.instance.masks import Patch, paste_mask
from pointrend_deploy.run.instance.overlay import outline, thing_colours
from pointrend_deploy.truth.annotations import TruthObject, mask_of

DRAWN_ABOVE = 0.5
"""Least score of a detection that is drawn; where none reaches it the best are drawn."""
AT_LEAST = 5
"""Number of best detections that are drawn then."""
OPACITY = 0.55
"""Of the masks' colours over the picture."""
_SHADES = (0.0, 0.35, -0.3)
"""How much detections of one class are mixed with white (above 0) or black, in turn."""


class InstanceGallery:
    """Draws the worst pictures of an instance bundle's comparison.

    First come pictures with detections that differ from PyTorch's and are not explained, then those
    whose true objects are covered least; without a truth, those whose masks are least like
    PyTorch's.

    Args:
        recipe: has the classes' names and colours.
        limit: number of pictures to draw.
    """

    def __init__(self, recipe: InstanceRecipe, limit: int = GALLERY_PICTURES) -> None:
        self._worst = Worst(limit)
        self._recipe = recipe

    @property
    def items(self) -> list[GalleryItem]:
        """The pictures drawn, the worst first."""
        return self._worst.items

    def __call__(self, seen: Compared) -> None:
        """Draw one picture if it is among the worst so far.

        Its tiles are both sides' answers, its true objects where they are known, and the points.
        """
        badness = _badness(seen)
        if self._worst.wants(badness):
            self._worst.keep(badness, self._item(seen))

    def _item(self, seen: Compared) -> GalleryItem:
        scores = np.concatenate((seen.reference.scores, seen.bundle.scores))
        above = DRAWN_ABOVE if (scores >= DRAWN_ABOVE).any() else _score_of(seen.reference)
        sides = {"this bundle": seen.bundle}
        if not seen.row.detections.passed:
            sides = {"PyTorch reference": seen.reference, **sides}
        if (coarse := _coarse(seen)) is not None:
            sides = {"coarse masks alone": coarse, **sides}
        count = int((seen.bundle.scores >= above).sum())
        return make_instance_item(
            seen.picture.name,
            seen.rgb,
            sides,
            self._recipe,
            seen.picture.objects,
            above,
            fitted_hw=seen.fitted.fitted_hw,
            points=_points(seen),
            caption=f"Drawn: {count} of this bundle's {len(seen.bundle)} detections, those with a "
            f"score of {above:.2g} or more.",
            zoom=None if coarse is None else ("coarse masks alone", "this bundle"),
        )


def make_instance_item(
    name: str,
    rgb: UInt8,
    sides: Mapping[str, Instances],
    recipe: InstanceRecipe,
    objects: Sequence[TruthObject] | None = None,
    above: float = DRAWN_ABOVE,
    fitted_hw: HW | None = None,
    points: tuple[Tile, ...] = (),
    caption: str = "",
    zoom: tuple[str, str] | None = None,
) -> GalleryItem:
    """Make the tiles of one picture.

    Args:
        name: of the picture.
        rgb: (H, W, 3) uint8.
        sides: instances by the label of their tile, in the order they are shown in.
        recipe: has the classes' names and colours.
        objects: the true objects; None where they are not known.
        above: least score of an instance that is drawn.
        fitted_hw: size of the picture on the network's canvas; None for the picture's own.
        points: tiles of the chosen points.
        caption: a sentence below the tiles.
        zoom: two of ``sides``; the part where their masks differ most, near an outline of the
            second, is shown enlarged. None for no such part.
    """
    hw = (rgb.shape[0], rgb.shape[1])
    colours = thing_colours(recipe.classes)
    drawn = {
        title: _Drawn(found, np.flatnonzero(found.scores >= above)[::-1].tolist())
        for title, found in sides.items()
    }
    if objects is not None:
        true = _true_instances(objects, hw)
        drawn["truth"] = _Drawn(true, range(len(true)))
    window = None
    if zoom is not None:
        window = window_of(drawn[zoom[0]].covered(), drawn[zoom[1]].covered(), fitted_hw)
    whole, small = Window(0, 0, *hw), small_hw(hw)
    base = np.asarray(Image.fromarray(rgb).resize(small[::-1], Image.Resampling.BILINEAR))
    tiles = [make_tile("picture", base if window is None else framed(base, window, hw))]
    tiles += [
        make_tile(title, _painted(base, each, colours, whole)) for title, each in drawn.items()
    ]
    zooms: list[Tile] = []
    if window is not None:
        part = window.of(rgb)
        zooms = [enlarged("picture", part)]
        zooms += [
            enlarged(title, _painted(part, each, colours, window)) for title, each in drawn.items()
        ]
    labels = {int(each.found.classes[row]) for each in drawn.values() for row in each.rows}
    legend = tuple((recipe.classes.names[label], _css(colours[label])) for label in sorted(labels))
    return GalleryItem(name, tuple(tiles), legend, caption, tuple(zooms), points)


def _painted(base: UInt8, drawn: _Drawn, colours: UInt8, window: Window) -> UInt8:
    """Paint instances over ``base``, which shows a window of the picture at any size."""
    out = base.copy()
    small = (base.shape[0], base.shape[1])
    seen: dict[int, int] = {}
    for row in drawn.rows:  # the best last, so on top
        label = int(drawn.found.classes[row])
        turn = _SHADES[seen.get(label, 0) % len(_SHADES)]
        seen[label] = seen.get(label, 0) + 1
        colour = _shaded(colours[label], turn)
        around = _shrunk(drawn.found.patches[row], window, small)
        covered, edge = around[1:-1, 1:-1], outline(around, 1)[1:-1, 1:-1]
        out[covered] = ((1 - OPACITY) * out[covered] + OPACITY * colour + 0.5).astype(np.uint8)
        out[edge] = _shaded(colour, 0.6)
    return out


@dataclass(frozen=True)
class _Drawn:
    """Instances, and the rows of those that are drawn, in this order."""

    found: Instances
    rows: Sequence[int]

    def covered(self) -> npt.NDArray[np.int64]:
        """Return by how many of the drawn masks each pixel of the picture is covered, (H, W)."""
        out = np.zeros(self.found.hw, np.int64)
        for row in self.rows:
            top, left, patch = self.found.patches[row]
            out[top : top + patch.shape[0], left : left + patch.shape[1]] += patch
        return out


def _badness(seen: Compared) -> tuple[float, float]:
    """Return how bad a picture is, to be compared in order; see :class:`InstanceGallery`."""
    row = seen.row.detections
    strays = row.only_bundle + row.only_reference - row.explained
    beyond = 0.0 if row.passed else 1.0 + strays
    objects = [each for each in seen.picture.objects or () if not each.crowd]
    if not objects:
        return beyond, 1.0 - (1.0 if row.mask_iou_min is None else row.mask_iou_min)
    found = seen.bundle
    best = []
    for thing in objects:
        mask = mask_of(thing.segmentation, found.hw)
        rows = np.flatnonzero((found.classes == thing.label) & (found.scores >= DRAWN_ABOVE))
        best.append(max((_iou(mask, found.mask(row)) for row in rows.tolist()), default=0.0))
    return beyond, 1.0 - float(np.mean(best))


def _iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def _score_of(found: Instances) -> float:
    scores = np.sort(found.scores)[::-1]
    return float(scores[min(AT_LEAST, len(scores)) - 1]) if len(scores) else DRAWN_ABOVE


def _shaded(colour: Array, turn: float) -> UInt8:
    end = 255.0 if turn > 0 else 0.0
    return np.round(colour + abs(turn) * (end - colour.astype(np.float64))).astype(np.uint8)


def _css(colour: UInt8) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour.tolist())


def _shrunk(patch: Patch, window: Window, small: HW) -> npt.NDArray[np.bool_]:
    """Return a mask inside a window at a tile's size, and one pixel around it.

    Returns:
        (h + 2, w + 2) bool for a tile of (h, w): of each pixel the mask's nearest. With what lies
        around it a mask that goes on past the tile has no outline there.
    """
    top, left, covered = patch
    places = [2 * np.arange(-1, side + 1) + 1 for side in small]
    rows = places[0] * window.height // (2 * small[0]) + window.top - top
    columns = places[1] * window.width // (2 * small[1]) + window.left - left
    height, width = covered.shape
    inside = [(rows >= 0) & (rows < height), (columns >= 0) & (columns < width)]
    out = np.zeros((small[0] + 2, small[1] + 2), np.bool_)
    out[np.ix_(*inside)] = covered[np.ix_(rows[inside[0]], columns[inside[1]])]
    return out


def _coarse(seen: Compared) -> Instances | None:
    """Return the reference's detections with the coarse head's masks, not the refined ones."""
    found = seen.reference
    coarse = seen.stages.get("coarse")
    if coarse is None or len(coarse) != len(found):
        return None
    planes = found.classes if coarse.shape[1] > 1 else np.zeros_like(found.classes)
    cells = coarse[np.arange(len(found)), planes]
    patches = [
        paste_mask(cell, box, found.hw)
        for cell, box in zip(probabilities(cells, "logits"), found.boxes, strict=True)
    ]
    return Instances(found.boxes, found.scores, found.classes, found.hw, tuple(patches))


def _true_instances(known: Sequence[TruthObject], hw: HW) -> Instances:
    objects = [each for each in known if not each.crowd]
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (each.box for each in objects)]
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.ones(len(objects), np.float32),
        classes=np.array([each.label for each in objects], np.int64),
        hw=hw,
        patches=tuple((0, 0, mask_of(each.segmentation, hw)) for each in objects),
    )


def _points(seen: Compared) -> tuple[Tile, ...]:
    """Draw the points of each step on the best object; none without such steps."""
    names = [name for name in seen.stages if name.endswith(".indices")]
    if not names or not len(seen.boxes):
        return ()
    last = seen.stages["mask_logits"].shape[
        -1
    ]  # each step's grid is twice as wide as the one before
    sides = [last >> (len(names) - 1 - step) for step in range(len(names))]
    fitted, own = seen.fitted.fitted_hw, seen.reference.hw
    x1, y1, x2, y2 = seen.boxes[0] * np.array(
        [own[1] / fitted[1], own[0] / fitted[0]] * 2, np.float64
    )
    room = 0.12 * max(x2 - x1, y2 - y1)
    left, top = max(0, int(x1 - room)), max(0, int(y1 - room))
    right, bottom = min(own[1], int(x2 + room) + 1), min(own[0], int(y2 + room) + 1)
    if right <= left or bottom <= top:
        return ()
    part = Image.fromarray(seen.rgb[top:bottom, left:right])
    scale = small_hw((bottom - top, right - left), grow=True)
    shown = np.asarray(part.resize(scale[::-1], Image.Resampling.BILINEAR))
    tiles = []
    for name, side in zip(names, sides, strict=True):
        indices = seen.stages[name][0]
        x = x1 + (indices % side + 0.5) / side * (x2 - x1)
        y = y1 + (indices // side + 0.5) / side * (y2 - y1)
        where = np.stack(
            (
                (x - left) / (right - left) * scale[1],
                (y - top) / (bottom - top) * scale[0],
            ),
            axis=1,
        )
        step = name.removesuffix(".indices")
        title = f"{step}: {len(indices):,} points on the best object"
        tiles.append(make_tile(title, dotted(shown, where)))
    return tuple(tiles)
