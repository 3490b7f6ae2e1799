"""Things found, drawn on their picture: tinted masks, outlines, boxes, names and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pointrend_deploy.instance_recipe import InstanceClassesSpec
from pointrend_deploy.run.instances import Instances
from pointrend_deploy.run.overlay import voc_palette

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

DRAW_ABOVE = 0.5
"""Score from which a thing is drawn, unless asked otherwise."""
OPACITY = 0.45
_SMALLEST_FONT = 8
_SHADES = (0.0, 0.4, -0.3)
"""How far neighbours of the same class go to white (above 0) or black, so that each is seen."""


def thing_colours(classes: InstanceClassesSpec) -> UInt8:
    """RGB of each class, (C, 3) uint8: the recipe's, or the PASCAL VOC palette without its black.

    (In that palette the first colour, black, is the background's.)
    """
    if classes.colours:
        return np.array(classes.colours, np.uint8)
    return voc_palette(len(classes.names) + 1)[1:]


def instance_overlay(
    rgb: UInt8,
    instances: Instances,
    names: Sequence[str],
    colours: UInt8,
    above: float = DRAW_ABOVE,
) -> UInt8:
    """The picture with each thing's mask tinted and outlined, its box, its class and its score.

    Lines and letters grow with the picture. A label goes where it covers no other one, if there is
    such a place beside its box; it is left out where the picture is too small for it.

    Args:
        rgb: (H, W, 3) uint8.
        instances: what was found; their ``hw`` is the picture's.
        names: of the classes.
        colours: (C, 3) uint8 RGB.
        above: score from which a thing is drawn, in [0, 1]; the best are drawn last.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    drawn = [int(index) for index in np.flatnonzero(instances.scores >= above)]
    out = np.ascontiguousarray(rgb).copy()
    size = max(12, round(math.sqrt(rgb.shape[0] * rgb.shape[1]) / 36))
    line = max(1, round(size / 9))
    shades = _shades(instances, colours)
    for index in reversed(drawn):
        _tint(out, instances, index, shades[index], line)
    image = Image.fromarray(out)
    canvas = ImageDraw.Draw(image)
    for index in reversed(drawn):
        x1, y1, x2, y2 = _pixels(instances.boxes[index])
        canvas.rectangle((x1, y1, x2, y2), outline=shades[index], width=line)
    taken: list[Rectangle] = []
    for index in drawn:
        label = f"{names[instances.classes[index]]} {instances.scores[index]:.2f}"
        box = _pixels(instances.boxes[index])
        _write(canvas, image.size, label, box, shades[index], size, taken)
    return np.array(image)


def outline(covered: Bool, width: int) -> Bool:
    """Pixels of a mask that lie within ``width`` pixels of its edge, as (h, w) bool."""
    inner = np.pad(covered, width)
    for axis in (0, 1):
        along = np.swapaxes(inner, 0, axis)
        reach = 1
        while reach < 2 * width + 1:  # twice as far each time
            step = min(reach, 2 * width + 1 - reach)
            along = along[:-step] & along[step:]
            reach += step
        inner = np.swapaxes(along, 0, axis)
    return covered & ~inner


def _tint(out: UInt8, instances: Instances, index: int, colour: Colour, line: int) -> None:
    top, left, covered = instances.patches[index]
    window = out[top : top + covered.shape[0], left : left + covered.shape[1]]
    alpha = round(256 * OPACITY)
    tint = np.array(colour, np.uint16) * np.uint16(alpha) + np.uint16(128)
    window[covered] = (window[covered] * np.uint16(256 - alpha) + tint) >> 8
    window[outline(covered, line)] = colour


def _shades(instances: Instances, colours: UInt8) -> list[Colour]:
    """A colour for each instance: its class's, lighter or darker by turns."""
    seen: dict[int, int] = {}
    shades = []
    for label in instances.classes.tolist():
        turn = _SHADES[seen.get(label, 0) % len(_SHADES)]
        seen[label] = seen.get(label, 0) + 1
        end = 255 if turn > 0 else 0
        red, green, blue = (round(v + abs(turn) * (end - v)) for v in colours[label].tolist())
        shades.append((red, green, blue))
    return shades


def _pixels(box: npt.NDArray[np.float32]) -> Rectangle:
    """First and last column and row that a box touches."""
    x1, y1, x2, y2 = (float(value) for value in box)
    left, top = math.floor(x1), math.floor(y1)
    return left, top, max(left, math.ceil(x2) - 1), max(top, math.ceil(y2) - 1)


def _write(
    canvas: ImageDraw.ImageDraw,
    picture_wh: tuple[int, int],
    label: str,
    box: Rectangle,
    colour: Colour,
    size: int,
    taken: list[Rectangle],
) -> None:
    """Write a label on a ground of its colour beside its box, and note the place as taken."""
    width, height = picture_wh
    wide = _font(size).getlength(label) * 1.1 + size / 2
    size = min(size, math.floor(size * width / wide), math.floor(height / 1.3))
    if size < _SMALLEST_FONT:
        return
    font, margin = _font(size), max(1, size // 6)
    left, top, right, bottom = (round(value) for value in font.getbbox(label))
    w, h = right - left + 2 * margin, bottom - top + 2 * margin
    x1, y1, x2, y2 = box
    places = [
        (min(max(x, 0), max(width - w, 0)), min(max(y, 0), max(height - h, 0)))
        for x, y in ((x1, y1 - h), (x1, y1), (x1, y2 + 1), (x1, y2 + 1 - h), (x2 + 1 - w, y1))
    ]
    rectangles = [(x, y, x + w, y + h) for x, y in places]
    free = (place for place in rectangles if not any(_meet(place, other) for other in taken))
    place = next(free, rectangles[0])
    taken.append(place)
    canvas.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colour)
    red, green, blue = colour
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    where = (place[0] + margin - left, place[1] + margin - top)
    canvas.text(where, label, fill=(255, 255, 255) if dark else (0, 0, 0), font=font)


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)
