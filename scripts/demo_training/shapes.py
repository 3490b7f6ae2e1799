"""Seeded masks of the four drawn classes: blob, star, ring and wire.

Each function draws on a square canvas and returns its coverage: float32 (size, size) in 0..1, the
share of each pixel that the shape covers. Lengths are given for a 256-pixel canvas and scale with
``size``; ``grow`` multiplies the extent of a shape, but not the width of a wire. Coordinates are
pixels, x to the right and y down, (0, 0) the outer corner.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Coverage = NDArray[np.float32]
Points = NDArray[np.float64]

_SUPERSAMPLE: Final = 4
_REFERENCE_SIZE: Final = 256


def blob(rng: np.random.Generator, size: int, grow: float = 1.0) -> Coverage:
    """A smooth closed curve: a circle with a few random low-frequency waves, filled."""
    angle = np.linspace(0.0, 2.0 * np.pi, 96, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, 6):
        radius += rng.uniform(0.0, 0.42 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return _filled([_polar(rng, angle, radius * rng.uniform(24.0, 62.0) * grow, size)], size)


def star(rng: np.random.Generator, size: int, grow: float = 1.0) -> Coverage:
    """Five to eight sharp tips around a body of 0.28 to 0.45 of their length."""
    tips = int(rng.integers(5, 9))
    angle = np.linspace(0.0, 2.0 * np.pi, 2 * tips, endpoint=False)
    radius = np.where(np.arange(2 * tips) % 2 == 0, 1.0, rng.uniform(0.28, 0.45))
    radius = radius * rng.uniform(0.85, 1.1, 2 * tips) * rng.uniform(34.0, 74.0) * grow
    return _filled([_polar(rng, angle + rng.uniform(0, 2 * np.pi), radius, size)], size)


def ring(rng: np.random.Generator, size: int, grow: float = 1.0) -> Coverage:
    """An elliptic band; what lies inside the hole shows through."""
    angle = np.linspace(0.0, 2.0 * np.pi, 96, endpoint=False)
    aspect, turn = rng.uniform(0.6, 1.0), rng.uniform(0.0, np.pi)
    outer = rng.uniform(30.0, 68.0) * grow
    inner = outer - rng.uniform(0.16, 0.36) * outer
    centre = _centre(rng, size)
    edges = [_ellipse(angle, r, r * aspect, turn, size) + centre for r in (outer, inner)]
    return _filled(edges, size)


def wire(rng: np.random.Generator, size: int, grow: float = 1.0) -> Coverage:
    """A thin curve, 3 to 6.5 pixels wide, smooth through four to six random points."""
    scale = size / _REFERENCE_SIZE
    steps = rng.uniform(-70.0, 70.0, (int(rng.integers(3, 6)), 2)) * scale * grow
    stops = np.vstack([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    stops += _centre(rng, size) - stops.mean(axis=0)
    path = _through(stops)
    canvas = np.zeros((size * _SUPERSAMPLE, size * _SUPERSAMPLE), np.uint8)
    width = max(1, round(rng.uniform(3.0, 6.5) * scale * _SUPERSAMPLE))
    cv2.polylines(canvas, [np.rint(path * _SUPERSAMPLE).astype(np.int32)], False, 255, width)
    return _shrunk(canvas, size)


SHAPES: Final = {"blob": blob, "star": star, "ring": ring, "wire": wire}
"""Class name -> the function that draws one."""


def _centre(rng: np.random.Generator, size: int) -> Points:
    return rng.uniform(0.12, 0.88, 2) * size


def _polar(rng: np.random.Generator, angle: Points, radius: Points, size: int) -> Points:
    scale = size / _REFERENCE_SIZE
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (radius * scale)[:, None]
    return around + _centre(rng, size)


def _ellipse(angle: Points, a: float, b: float, turn: float, size: int) -> Points:
    x, y = a * np.cos(angle), b * np.sin(angle)
    turned = np.stack(
        [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1
    )
    return turned * (size / _REFERENCE_SIZE)


def _through(stops: Points) -> Points:
    """Catmull-Rom curve through ``stops`` (n, 2), 24 points a segment."""
    ends = np.vstack([2 * stops[0] - stops[1], stops, 2 * stops[-1] - stops[-2]])
    t = np.linspace(0.0, 1.0, 24)[:, None]
    pieces = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        pieces.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2)
            + 0.5 * (3 * b - a - 3 * c + d) * t**3
        )
    return np.vstack(pieces)


def _filled(outlines: list[Points], size: int) -> Coverage:
    """Area inside an odd number of ``outlines``: a second one inside the first is a hole."""
    canvas = np.zeros((size * _SUPERSAMPLE, size * _SUPERSAMPLE), np.uint8)
    cv2.fillPoly(canvas, [np.rint(o * _SUPERSAMPLE).astype(np.int32) for o in outlines], 255)
    return _shrunk(canvas, size)


def _shrunk(canvas: NDArray[np.uint8], size: int) -> Coverage:
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255.0)
