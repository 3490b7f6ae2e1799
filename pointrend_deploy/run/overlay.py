"""Label maps and overlays, drawn and encoded as picture files."""

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
    """Choose RGB colours of the classes, (C, 3) uint8: the recipe's, or PASCAL VOC's palette."""
    if classes.colours:
        return np.array(classes.colours, np.uint8)
    return voc_palette(len(classes.names))


def voc_palette(count: int) -> UInt8:
    """Compute the first colours of the PASCAL VOC palette, (count, 3) uint8; all 256 differ.

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
    """Encode labels as a palette PNG: pixels are class numbers, the palette has their colours.

    Args:
        labels: (H, W) uint8.
        colours: (C, 3) uint8 RGB.
    """
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(colours.tobytes())  # turns the mode from L to P, values unchanged
    return _encoded(image, "PNG", compress_level=6)


def overlay(rgb: UInt8, labels: UInt8, colours: UInt8, opacity: float = OPACITY) -> UInt8:
    """Tint each pixel in its class's colour and draw a white line between classes.

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
    """Find the pixels whose right or lower neighbour has another label: (H, W) bool."""
    edge = np.zeros(labels.shape, np.bool_)
    edge[:, :-1] = labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def overlay_suffix(hw: tuple[int, int]) -> str:
    """Choose ``.jpg``, or ``.png`` for a picture longer than a JPEG can be."""
    return ".jpg" if max(hw) <= _JPEG_MAX_SIDE else ".png"


def picture_bytes(rgb: UInt8, suffix: str) -> bytes:
    """Encode (H, W, 3) uint8 RGB as a JPEG of high quality (``.jpg``) or a PNG (``.png``)."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    if suffix == ".jpg":
        return _encoded(image, "JPEG", quality=92, subsampling=0)
    return _encoded(image, "PNG", compress_level=1)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
