"""A seed becomes a scene: shapes and cut-outs over a photograph, with the exact label map.

Later objects hide earlier ones. A pixel belongs to the last object that covers at least half of
it, so labels are exact at every resolution, and colours blend over the boundary as in a camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from scripts.demo_training.material import OBJECTS, Material
from scripts.demo_training.noise import Noise, draw_noise, with_noise
from scripts.demo_training.shapes import SHAPES, Coverage

CLASSES: Final = ("background", *SHAPES, *OBJECTS)
"""Class names in the order of the labels: 0 is the photograph."""

_LEAST_CONTRAST: Final = 70.0
_FEWEST_OBJECTS, _MOST_OBJECTS = 4, 7


@dataclass(frozen=True)
class Scene:
    """A picture and its labels.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        label: (size, size) uint8, indices of CLASSES.
        noise: where the noise of the image begins; none for a scene that was read from files.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    noise: Noise | None = None


def make_scene(seed: int, material: Material, size: int = 256) -> Scene:
    """Compose one scene; the same seed and material give the same scene.

    Args:
        seed: non-negative.
        material: photographs and cut-outs of one split.
        size: height and width in pixels; objects scale with it.
    """
    rng, canvas, label = started(seed, material, size)
    for _ in range(int(rng.integers(_FEWEST_OBJECTS, _MOST_OBJECTS + 1))):
        index = int(rng.integers(1, len(CLASSES)))
        coverage, paint = drawn(rng, CLASSES[index], material, canvas)
        canvas = blended(canvas, coverage, paint)
        label[coverage >= 0.5] = index
    noise = Noise.begins(seed, rng)
    return Scene(as_photographed(rng, canvas), label, noise)


def started(
    seed: int, material: Material, size: int
) -> tuple[np.random.Generator, NDArray[np.float32], NDArray[np.uint8]]:
    """Start a scene without objects.

    Returns:
        The generator of all that is random in it, a background (size, size, 3) float32 in 0..255,
        and zeros (size, size) uint8 for the indices of what is drawn.
    """
    rng = np.random.default_rng(seed)
    return rng, background(rng, material, size), np.zeros((size, size), np.uint8)


def drawn(
    rng: np.random.Generator,
    name: str,
    material: Material,
    canvas: NDArray[np.float32],
    grow: float = 1.0,
) -> tuple[Coverage, NDArray[np.float32]]:
    """One object of a class for a canvas (size, size, 3): its coverage and its colours.

    ``grow`` multiplies its extent.
    """
    size = len(canvas)
    if name in SHAPES:
        coverage = SHAPES[name](rng, size, grow)
        return coverage, _paint(rng, material, canvas, coverage, size)
    cutouts = material.objects[name]
    return _placed(rng, cutouts[int(rng.integers(len(cutouts)))], size, grow)


def blended(
    canvas: NDArray[np.float32], coverage: Coverage, paint: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The canvas with an object over it."""
    alpha = coverage[..., None]
    return np.asarray(canvas * (1.0 - alpha) + paint * alpha, np.float32)


def as_photographed(rng: np.random.Generator, canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The canvas with a little noise, as uint8."""
    return with_noise(canvas, draw_noise(rng, canvas.shape))


def _crop(rng: np.random.Generator, material: Material, size: int) -> NDArray[np.float32]:
    """A random square of a random photograph, resized to the scene; mirrored half the time."""
    photo = material.photos[int(rng.integers(len(material.photos)))]
    shortest = min(photo.shape[:2])
    side = int(rng.integers(max(48, shortest // 5), shortest + 1))
    top = int(rng.integers(photo.shape[0] - side + 1))
    left = int(rng.integers(photo.shape[1] - side + 1))
    square = photo[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(square, (size, size), interpolation=how), np.float32)
    mirrored = resized[:, ::-1] if rng.random() < 0.5 else resized
    return np.ascontiguousarray(mirrored)


def background(rng: np.random.Generator, material: Material, size: int) -> NDArray[np.float32]:
    """A crop of a photograph with another gain for each colour: (size, size, 3), 0..255."""
    gain = rng.uniform(0.75, 1.15, 3).astype(np.float32)
    return np.asarray(np.clip(_crop(rng, material, size) * gain, 0.0, 255.0), np.float32)


def _paint(
    rng: np.random.Generator,
    material: Material,
    canvas: NDArray[np.float32],
    coverage: Coverage,
    size: int,
) -> NDArray[np.float32]:
    """Colour of a shape: flat with a gradient, striped, or a photograph tinted.

    Its base colour stands at least 70 (Euclidean, RGB 0..255) from the mean of what it hides.
    """
    inside = coverage > 0.5
    hidden = canvas[inside].mean(axis=0) if inside.any() else np.full(3, 128.0, np.float32)
    base = rng.uniform(10.0, 245.0, 3)
    for _ in range(16):
        if np.linalg.norm(base - hidden) >= _LEAST_CONTRAST:
            break
        base = rng.uniform(10.0, 245.0, 3)
    turn = rng.uniform(0.0, 2.0 * np.pi)
    row, column = np.mgrid[0:size, 0:size].astype(np.float32) / size
    along = (column - 0.5) * np.float32(np.cos(turn)) + (row - 0.5) * np.float32(np.sin(turn))
    kind = rng.random()
    if kind < 0.6:
        change = rng.uniform(-60.0, 60.0, 3)
        paint = base + along[..., None] * change
    elif kind < 0.8:
        stripes = np.sin(along * rng.uniform(20.0, 90.0))[..., None]
        paint = base + stripes * rng.uniform(10.0, 35.0)
    else:
        paint = 0.7 * base + 0.3 * _crop(rng, material, size)
    return np.asarray(np.clip(paint, 0.0, 255.0), np.float32)


def _placed(
    rng: np.random.Generator, cutout: NDArray[np.uint8], size: int, grow: float = 1.0
) -> tuple[Coverage, NDArray[np.float32]]:
    """Scale, mirror, turn and place a cut-out: its coverage (size, size) and colours."""
    longest = rng.uniform(70.0, 150.0) * grow * size / 256.0
    shrink = longest / max(cutout.shape[:2])
    straight = cutout[:, ::-1] if rng.random() < 0.5 else cutout
    layers = straight.astype(np.float32)
    layers[..., 3] /= 255.0
    layers[..., :3] *= layers[..., 3:]
    small = cv2.resize(
        layers, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA
    )  # premultiplied, so that transparent pixels lend no colour
    height, width = small.shape[:2]
    move = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-30.0, 30.0), 1.0)
    move[:, 2] += rng.uniform(0.15, 0.85, 2) * size - np.array([width / 2, height / 2])
    moved = cv2.warpAffine(small, move, (size, size), flags=cv2.INTER_LINEAR)
    coverage = np.clip(moved[..., 3], 0.0, 1.0).astype(np.float32)
    colours = moved[..., :3] / np.maximum(moved[..., 3:], 1e-4)
    return coverage, np.clip(colours, 0.0, 255.0).astype(np.float32)
