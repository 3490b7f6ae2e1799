"""Label maps and overlays as picture files."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.recipe.parts import ClassesSpec

UInt8 = npt.NDArray[np.uint8]

OPACITY = 0.5
_JPEG_MAX_SIDE = 65_500
_STRIP_PIXELS = 1 << 20
_OUTLINE = 255


def class_colours(classes: ClassesSpec) -> UInt8:
    """The RGB colour of each class, (C, 3) uint8: the recipe's, or the PASCAL VOC palette."""
    if classes.colours:
        return np.array(classes.colours, np.uint8)
    return voc_palette(len(classes.names))


def voc_palette(count: int) -> UInt8:
    """The first colours of the PASCAL VOC palette, (count, 3) uint8; all 256 are different.

    Bit j of red, green and blue, counted from the top, is bit 3j, 3j + 1 and 3j + 2 of the label
    (VOC devkit, VOClabelcolormap).
    """
    label = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for j in range(8):
        for channel in range(3):
            colours[:, channel] |= (((label >> (3 * j + channel)) & 1) << (7 - j)).astype(np.uint8)
    return colours


def label_png(labels: UInt8, colours: UInt8) -> bytes:
    """A palette PNG: pixel values are the class numbers, the palette holds the classes' colours.

    Args:
        labels: (H, W) uint8.
        colours: (C, 3) uint8 RGB.
    """
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(colours.tobytes())  # turns the mode from L to P, values unchanged
    return _encoded(image, "PNG", compress_level=6)


def overlay(rgb: UInt8, labels: UInt8, colours: UInt8, opacity: float = OPACITY) -> UInt8:
    """The picture with each pixel tinted in its class's colour and a white line between classes.

    Args:
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint8, all below C.
        colours: (C, 3) uint8 RGB.
        opacity: of the colours, 0 (picture only) to 1 (colours only).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = labels.shape
    out = np.empty_like(rgb)
    alpha = round(256 * opacity)
    tint = colours.astype(np.uint16) * np.uint16(alpha) + np.uint16(128)
    rows = max(1, _STRIP_PIXELS // width)
    for start in range(0, height, rows):
        strip = slice(start, start + rows)
        mixed = rgb[strip] * np.uint16(256 - alpha)
        mixed += tint[labels[strip]]
        out[strip] = mixed >> 8
    out[boundaries(labels)] = _OUTLINE
    return out


def boundaries(labels: UInt8) -> npt.NDArray[np.bool_]:
    """(H, W) bool: pixels whose right or lower neighbour has another label (lines 1 px wide)."""
    edge = np.zeros(labels.shape, np.bool_)
    edge[:, :-1] = labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def overlay_suffix(hw: tuple[int, int]) -> str:
    """``.jpg``, or ``.png`` for a picture longer than a JPEG can be."""
    return ".jpg" if max(hw) <= _JPEG_MAX_SIDE else ".png"


def picture_bytes(rgb: UInt8, suffix: str) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG of high quality (``.jpg``) or a PNG (``.png``)."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    if suffix == ".jpg":
        return _encoded(image, "JPEG", quality=92, subsampling=0)
    return _encoded(image, "PNG", compress_level=1)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
