"""Instances drawn on their picture: tinted masks, outlines, boxes, names and scores."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pointrend_deploy.recipe.instance import InstanceClassesSpec
from pointrend_deploy.run.instance.instances import Instances

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

DRAW_ABOVE = 0.5
"""The lowest score that is drawn, unless the user chooses another."""
OPACITY = 0.45
_READABLE = 400
"""A picture whose longer side is below this is drawn enlarged."""
_SMALLEST_FONT = 8
_GOLDEN = 0.618034
"""Steps of the golden ratio never come near an earlier hue."""
_SHADES = (0.0, 0.4, -0.3)
"""How far instances of one class go to white (above 0) or black in turn, to tell them apart."""


def thing_colours(classes: InstanceClassesSpec) -> UInt8:
    """Choose RGB colours of the classes, (C, 3) uint8: the recipe's, or distinct bright hues."""
    if classes.colours:
        return np.array(classes.colours, np.uint8)
    hues = [(index * _GOLDEN) % 1 for index in range(len(classes.names))]
    rgb = [colorsys.hsv_to_rgb(hue, 0.85, 1.0) for hue in hues]
    return (255 * np.array(rgb)).round().astype(np.uint8)


def instance_overlay(
    rgb: UInt8,
    instances: Instances,
    names: Sequence[str],
    colours: UInt8,
    above: float = DRAW_ABOVE,
) -> UInt8:
    """Draw each instance: its mask tinted and outlined, its box, its class and its score.

    Lines and letters grow with the picture, and a small picture is drawn enlarged by a whole
    factor, so that they can be read. A label is put beside its box where it covers no other label,
    if there is such a place; it is left out where the picture is too narrow for it.

    Args:
        rgb: (H, W, 3) uint8.
        instances: of the picture; their ``hw`` is the picture's.
        names: of the classes.
        colours: (C, 3) uint8 RGB.
        above: the lowest score that is drawn, in [0, 1]; higher scores are drawn over lower ones.

    Returns:
        (k * H, k * W, 3) uint8 RGB; k is 1 unless both sides are below 400.
    """
    rgb, instances = _enlarged(rgb, instances, math.ceil(_READABLE / max(rgb.shape[:2])))
    drawn = [int(index) for index in np.flatnonzero(instances.scores >= above)]
    image = Image.fromarray(np.ascontiguousarray(rgb))
    size = max(12, round(math.sqrt(rgb.shape[0] * rgb.shape[1]) / 36))
    line = max(1, round(size / 9))
    shades = _shades(instances, colours)
    for index in reversed(drawn):
        _tint(image, instances, index, shades[index], line)
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
    """Find the pixels of a mask within ``width`` pixels of its edge: (h, w) bool."""
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


def _enlarged(rgb: UInt8, instances: Instances, factor: int) -> tuple[UInt8, Instances]:
    """Enlarge picture and instances: each pixel is repeated ``factor`` times both ways."""
    if factor == 1:
        return rgb, instances
    patches = (
        (factor * top, factor * left, covered.repeat(factor, 0).repeat(factor, 1))
        for top, left, covered in instances.patches
    )
    height, width = instances.hw
    return rgb.repeat(factor, 0).repeat(factor, 1), replace(
        instances,
        boxes=instances.boxes * np.float32(factor),
        hw=(factor * height, factor * width),
        patches=tuple(patches),
    )


def _tint(image: Image.Image, instances: Instances, index: int, colour: Colour, line: int) -> None:
    top, left, covered = instances.patches[index]
    opacity = covered * np.uint8(round(255 * OPACITY))
    opacity[outline(covered, line)] = 255
    image.paste(colour, (left, top), Image.fromarray(opacity))


def _shades(instances: Instances, colours: UInt8) -> list[Colour]:
    """Choose a colour for each instance: its class's, lighter or darker in turn."""
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
    """Find the first and last column and row that a box touches."""
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
    """Write a label on a background of its colour beside its box; add its place to ``taken``."""
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
    """Load Pillow's own font in a size."""
    return ImageFont.load_default(size)
