"""A seed becomes a scene of instances: the composer's objects, larger and each with its own mask.

Later objects hide earlier ones, and a mask is what can be seen. An object that would leave another
too little to see is drawn again, so that every object of a scene has an annotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scripts.demo_training.compose import CLASSES, as_photographed, blended, drawn, started
from scripts.demo_training.material import Material
from scripts.demo_training.noise import Noise

THINGS: Final = CLASSES[1:]
"""Class names in the order of the logits."""

_FEWEST, _MOST = 3, 6
_LEAST_SEEN: Final = 0.45
"""Share of an object that must stay to be seen when others are put over it."""
_LEAST_PIXELS: Final = 200
_ATTEMPTS: Final = 6
_GROW: Final = (0.9, 1.6)


@dataclass(frozen=True)
class InstanceScene:
    """A picture and what stands in it.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        owner: (size, size) uint8; 0 is the photograph, i + 1 instance i.
        classes: (G,) int64, indices of THINGS.
        noise: where the noise of the image begins, where that is known.
    """

    image: NDArray[np.uint8]
    owner: NDArray[np.uint8]
    classes: NDArray[np.int64]
    noise: Noise | None = None

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(G, 4) float32, (x1, y1, x2, y2): tight boxes of the masks, corners at pixel edges."""
        return boxes_of(self.owner, len(self.classes))

    def mask(self, instance: int) -> NDArray[np.bool_]:
        """(size, size) bool: what can be seen of an instance."""
        return np.asarray(self.owner == instance + 1)


def boxes_of(owner: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """Tight boxes (count, 4) of the instances 1..count of an owner map; each has a pixel."""
    boxes = np.empty((count, 4), np.float32)
    for instance in range(count):
        mask = owner == instance + 1
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes[instance] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def make_instance_scene(seed: int, material: Material, size: int = 256) -> InstanceScene:
    """Compose one scene of up to six instances.

    Arguments are those of :func:`~scripts.demo_training.compose.make_scene`, and as there the same
    seed and material give the same scene.
    """
    rng, canvas, owner = started(seed, material, size)
    classes: list[int] = []
    whole: list[int] = []
    fewest_pixels = _LEAST_PIXELS * (size / 256.0) ** 2
    for _ in range(int(rng.integers(_FEWEST, _MOST + 1))):
        index = int(rng.integers(len(THINGS)))
        for _ in range(_ATTEMPTS):
            coverage, paint = drawn(rng, THINGS[index], material, canvas, rng.uniform(*_GROW))
            inside = coverage >= 0.5
            left = np.where(inside, 0, owner)
            seen = np.bincount(left.ravel(), minlength=len(classes) + 1)[1:]
            clear = all(s >= _LEAST_SEEN * w for s, w in zip(seen, whole, strict=True))
            if clear and inside.sum() >= fewest_pixels and (seen >= fewest_pixels).all():
                classes.append(index)
                whole.append(int(inside.sum()))
                owner[inside] = len(classes)
                canvas = blended(canvas, coverage, paint)
                break
    noise = Noise.begins(seed, rng)
    image = as_photographed(rng, canvas)
    return InstanceScene(image, owner, np.asarray(classes, np.int64), noise)
