"""The pictures of a calibration as inputs of a bundle's graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.canvas import Fitted, batch_of, fit, from_rgb
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.pictures.lists import ListedPicture, printable

Look = Callable[[ListedPicture, npt.NDArray[np.uint8]], bool]
"""Told of each picture read, (H, W, 3) uint8 RGB; False leaves it out."""
Skip = Callable[[ListedPicture, str], None]
"""Told of each picture that cannot be read, and why."""


@dataclass(frozen=True)
class CanvasBatch:
    """Pictures on the bundle's canvas.

    Attributes:
        pictures: 1 to N of them; the rows beyond repeat the last.
        inputs: of the graph, by name.
    """

    pictures: tuple[ListedPicture, ...]
    inputs: dict[str, npt.NDArray[Any]]


def canvas_batches(
    bundle: Bundle, pictures: Sequence[ListedPicture], look: Look, skip: Skip
) -> Iterator[CanvasBatch]:
    """The pictures as `run` would give them to the graph, in the bundle's batches.

    Args:
        bundle: opened.
        pictures: in order.
        look: see there.
        skip: see there.
    """
    manifest = bundle.manifest
    taken: list[tuple[ListedPicture, Fitted]] = []
    for picture in pictures:
        try:
            rgb = read_picture(picture.path).rgb
        except DeployError as error:
            skip(picture, printable(error.message))
            continue
        if not look(picture, rgb):
            continue
        taken.append((picture, fit(from_rgb(rgb, manifest), manifest)))
        if len(taken) == manifest.canvas.batch:
            yield _batch(bundle, taken)
            taken = []
    if taken:
        yield _batch(bundle, taken)


def _batch(bundle: Bundle, taken: Sequence[tuple[ListedPicture, Fitted]]) -> CanvasBatch:
    pictures, fitted = zip(*taken, strict=True)
    return CanvasBatch(pictures, batch_of(fitted, bundle.manifest))
