"""The pictures of a calibration as inputs of a bundle's graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle import Bundle, sha256_of
from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.images import ListedPicture, printable, read_list
from pointrend_deploy.run.preprocess import Fitted, batch_of, fit, from_rgb
from pointrend_deploy.run.source import SUFFIXES, list_pictures, read_picture

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


def listed(images: Path) -> tuple[ListedPicture, ...]:
    """The pictures of a folder, sorted by name, or of a list; each with its SHA-256.

    Raises:
        DeployError: no such folder or list, no picture in it, or a line of the list that does not
            hold; see :func:`pointrend_deploy.quantize.images.read_list`.
    """
    images = Path(images)
    if images.is_file():
        if images.suffix.lower() in SUFFIXES:
            raise DeployError(
                f"{images} is a picture, where a folder or a list of pictures is needed",
                "a list is a text file with lines 'SHA256  path'",
            )
        return read_list(images)
    if not images.exists():
        raise DeployError(f"no such folder or list of pictures: {images}", "check the path")
    return tuple(
        ListedPicture(path, printable(path.name), _sha256(path)) for path in list_pictures(images)
    )


def _sha256(path: Path) -> str:
    """Empty where the file cannot be read; reading the picture then says why."""
    try:
        return sha256_of(path)
    except DeployError:
        return ""


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
