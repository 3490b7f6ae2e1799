"""Pictures in batches of a bundle's size, as inputs of its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.canvas import Fitted, batch_of, fit, from_rgb
from pointrend_deploy.pictures.files import printable, read_picture
from pointrend_deploy.pictures.lists import ListedPicture

Each = TypeVar("Each")
Look = Callable[[ListedPicture, npt.NDArray[np.uint8]], bool]
"""Called with each picture that was read, (H, W, 3) uint8 RGB; False leaves the picture out."""
Skip = Callable[[ListedPicture, str], None]
"""Called with each picture that cannot be read, and the reason."""


def in_batches(items: Iterable[Each], count: int) -> Iterator[list[Each]]:
    """Group items into lists of ``count``, the last one shorter where they do not fill it.

    Only one batch is in memory at a time: an item is taken when its batch needs it.
    """
    waiting: list[Each] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == count:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def read_fitted(path: str | Path, manifest: Manifest) -> Fitted:
    """Read a picture's file and put it on the bundle's canvas.

    Raises:
        DeployError: the picture cannot be read.
    """
    return fit(from_rgb(read_picture(path).rgb, manifest), manifest)


def fitted_batches(paths: Iterable[Path], manifest: Manifest) -> Iterator[list[Fitted]]:
    """Read pictures and put them on the canvas, in batches of the bundle's size.

    Raises:
        DeployError: a picture cannot be read.
    """
    return in_batches((read_fitted(path, manifest) for path in paths), manifest.canvas.batch)


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
    """Prepare listed pictures as `run` does, in the bundle's batches.

    Args:
        bundle: opened.
        pictures: in order.
        look: called with each picture that was read; False leaves it out.
        skip: called with each picture that cannot be read.
    """
    manifest = bundle.manifest

    def taken() -> Iterator[tuple[ListedPicture, Fitted]]:
        for picture in pictures:
            try:
                rgb = read_picture(picture.path).rgb
            except DeployError as error:
                skip(picture, printable(error.message))
                continue
            if look(picture, rgb):
                yield picture, fit(from_rgb(rgb, manifest), manifest)

    for batch in in_batches(taken(), manifest.canvas.batch):
        listed, fitted = zip(*batch, strict=True)
        yield CanvasBatch(listed, batch_of(fitted, manifest))
