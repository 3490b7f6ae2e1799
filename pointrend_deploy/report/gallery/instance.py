"""Pictures for the report of an instance bundle: each side's masks, the truth, and the points."""

from __future__ import annotations

from collections.abc import Sequence

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
    dotted,
    make_tile,
    small_hw,
)
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
    """Draws the first pictures of an instance bundle's comparison.

    Args:
        recipe: has the classes' names and colours.
        limit: number of pictures to draw.
    """

    def __init__(self, recipe: InstanceRecipe, limit: int = GALLERY_PICTURES) -> None:
        self.items: list[GalleryItem] = []
        self._recipe, self._limit = recipe, limit
        self._colours = thing_colours(recipe.classes)

    def __call__(self, seen: Compared) -> None:
        """Draw one picture from both sides' answers, and its true objects where they are known.

        Pictures past the limit are not drawn.
        """
        if len(self.items) >= self._limit:
            return
        small = small_hw(seen.reference.hw)
        base = np.asarray(Image.fromarray(seen.rgb).resize(small[::-1], Image.Resampling.BILINEAR))
        scores = np.concatenate((seen.reference.scores, seen.bundle.scores))
        above = DRAWN_ABOVE if (scores >= DRAWN_ABOVE).any() else _score_of(seen.reference)
        sides = {"PyTorch reference": seen.reference, "this bundle": seen.bundle}
        if (coarse := _coarse(seen)) is not None:
            sides = {"coarse masks alone": coarse, **sides}
        labels: set[int] = set()
        tiles = [make_tile("picture", base)]
        for title, found in sides.items():
            rows = np.flatnonzero(found.scores >= above)[::-1]  # the best last, so on top
            tiles.append(self._tile(title, base, found, rows.tolist()))
            labels |= set(found.classes[rows].tolist())
        if seen.picture.objects is not None:
            true = _true_instances(seen.picture.objects, seen.reference.hw)
            tiles.append(self._tile("truth", base, true, range(len(true))))
            labels |= set(true.classes.tolist())
        if (points := _points(seen)) is not None:
            tiles.append(points)
        drawn = int((seen.bundle.scores >= above).sum())
        self.items.append(
            GalleryItem(
                seen.picture.name,
                tuple(tiles),
                tuple(
                    (self._recipe.classes.names[label], _css(self._colours[label]))
                    for label in sorted(labels)
                ),
                f"Drawn: {drawn} of this bundle's {len(seen.bundle)} detections, those with a "
                f"score of {above:.2g} or more.",
            )
        )

    def _tile(self, title: str, base: UInt8, found: Instances, rows: Sequence[int]) -> Tile:
        out = base.copy()
        small = (base.shape[0], base.shape[1])
        seen: dict[int, int] = {}
        for row in rows:
            label = int(found.classes[row])
            turn = _SHADES[seen.get(label, 0) % len(_SHADES)]
            seen[label] = seen.get(label, 0) + 1
            colour = _shaded(self._colours[label], turn)
            covered = _shrunk(found.patches[row], found.hw, small)
            out[covered] = ((1 - OPACITY) * out[covered] + OPACITY * colour + 0.5).astype(np.uint8)
            out[outline(covered, 1)] = _shaded(colour, 0.6)
        return make_tile(title, out)


def _score_of(found: Instances) -> float:
    scores = np.sort(found.scores)[::-1]
    return float(scores[min(AT_LEAST, len(scores)) - 1]) if len(scores) else DRAWN_ABOVE


def _shaded(colour: Array, turn: float) -> UInt8:
    end = 255.0 if turn > 0 else 0.0
    return np.round(colour + abs(turn) * (end - colour.astype(np.float64))).astype(np.uint8)


def _css(colour: UInt8) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour.tolist())


def _shrunk(patch: Patch, hw: HW, small: HW) -> npt.NDArray[np.bool_]:
    """Return a mask at the tile's size: for each pixel of the tile the mask's nearest pixel."""
    top, left, covered = patch
    rows = (2 * np.arange(small[0]) + 1) * hw[0] // (2 * small[0]) - top
    columns = (2 * np.arange(small[1]) + 1) * hw[1] // (2 * small[1]) - left
    height, width = covered.shape
    inside = [(rows >= 0) & (rows < height), (columns >= 0) & (columns < width)]
    out = np.zeros(small, np.bool_)
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


def _points(seen: Compared) -> Tile | None:
    """Draw the points of the last step on the best object; None without such steps."""
    steps = sum(name.endswith(".indices") for name in seen.stages)
    if not steps or not len(seen.boxes):
        return None
    indices = seen.stages[f"step{steps}.indices"][0]
    side = seen.stages["mask_logits"].shape[-1]
    fitted, own = seen.fitted.fitted_hw, seen.reference.hw
    x1, y1, x2, y2 = seen.boxes[0] * np.array(
        [own[1] / fitted[1], own[0] / fitted[0]] * 2, np.float64
    )
    x = x1 + (indices % side + 0.5) / side * (x2 - x1)
    y = y1 + (indices // side + 0.5) / side * (y2 - y1)
    room = 0.12 * max(x2 - x1, y2 - y1)
    left, top = max(0, int(x1 - room)), max(0, int(y1 - room))
    right, bottom = min(own[1], int(x2 + room) + 1), min(own[0], int(y2 + room) + 1)
    if right <= left or bottom <= top:
        return None
    part = Image.fromarray(seen.rgb[top:bottom, left:right])
    scale = small_hw((bottom - top, right - left), grow=True)
    shown = np.asarray(part.resize(scale[::-1], Image.Resampling.BILINEAR))
    where = np.stack(
        (
            (x - left) / (right - left) * scale[1],
            (y - top) / (bottom - top) * scale[0],
        ),
        axis=1,
    )
    return make_tile(
        f"the best object, points of step{steps} ({len(indices)})", dotted(shown, where)
    )
