"""Generated pictures, always the same, on which an export is verified when the user gives none.

Errors show where a network's logits vary, so the pictures have edges of all directions, flat and
textured areas and fine lines; noise alone would leave every stage near its mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.pictures.batches import read_fitted
from pointrend_deploy.pictures.canvas import Fitted, fit, from_rgb
from pointrend_deploy.pictures.files import list_pictures


def verification_picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Generate a scene.

    Args:
        height: in pixels, at least 1.
        width: in pixels, at least 1.
        seed: another seed gives another scene.

    Returns:
        height x width x 3 uint8.
    """
    rng = np.random.default_rng([20200314, seed])
    y = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(0.0, 1.0, width, dtype=np.float32)[None, :]
    picture = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        a, b, c = rng.uniform(-80, 80, 3)
        picture[..., channel] = 128 + a * (x - 0.5) + b * (y - 0.5) + c * (x - 0.5) * (y - 0.5)
    aspect = width / height
    for _ in range(24):
        centre_y, centre_x = rng.uniform(0, 1, 2)
        radius = rng.uniform(0.03, 0.3)
        lobes, depth, phase = rng.integers(0, 7), rng.uniform(0, 0.5), rng.uniform(0, 6.3)
        reach = radius * (1 + depth)
        rows = slice(*np.searchsorted(y[:, 0], (centre_y - reach, centre_y + reach)))
        columns = slice(*np.searchsorted(x[0], np.array((-reach, reach)) / aspect + centre_x))
        dy, dx = y[rows] - centre_y, (x[:, columns] - centre_x) * aspect
        edge = radius * (1 + depth * np.cos(lobes * np.arctan2(dy, dx) + phase))
        distance = np.hypot(dy, dx)
        inside = distance < edge
        if rng.random() < 0.3:
            inside &= distance > edge - rng.uniform(0.004, 0.03)
        colour = rng.uniform(0, 255, 3).astype(np.float32)
        stripes = 1 + rng.uniform(0, 0.4) * np.sin(rng.uniform(20, 200) * (dx + dy * rng.normal()))
        picture[rows, columns][inside] = (colour * stripes[..., None])[inside]
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * 4
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def verification_batch(manifest: Manifest, verify_on: str | Path | None) -> list[Fitted]:
    """Prepare one batch of pictures on the canvas: the user's first ones, or generated ones.

    Args:
        manifest: of the bundle; its canvas gives the size and the number of pictures.
        verify_on: a picture or a folder of pictures; None for generated ones.

    Raises:
        DeployError: there is no picture at ``verify_on``, or one cannot be read.
    """
    count = manifest.canvas.batch
    if verify_on is not None:
        return [read_fitted(path, manifest) for path in list_pictures(verify_on)[:count]]
    height, width = manifest.canvas.size_hw
    pictures = [verification_picture(height, width, seed) for seed in range(count)]
    return [fit(from_rgb(picture, manifest), manifest) for picture in pictures]
