"""A picture as a program has it: an array, the path of a file, or a PIL picture."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.pictures.canvas import check_image
from pointrend_deploy.pictures.files import read_picture, rgb_of

UInt8 = npt.NDArray[np.uint8]
Given = UInt8 | str | os.PathLike[str] | Image.Image
"""A picture: H x W x 3 uint8, a file's path, or a PIL picture."""
Color = Literal["rgb", "bgr"]
"""Channel order of an array. PIL gives RGB, OpenCV BGR."""
_NOT_ARRAYS: Final = (str, os.PathLike, Image.Image)


def in_order(image: Given, order: Color, color: Color | None = None) -> UInt8:
    """Return the pixels of a picture in a channel order.

    Files and PIL pictures are made upright and converted alike; see
    :func:`pointrend_deploy.pictures.files.read_picture`. Of a PIL picture with several frames the
    present one is taken. An array is taken as it is.

    Args:
        image: the picture.
        order: the channel order wanted.
        color: channel order of an array; None where it is ``order`` already. It does not concern
            files and PIL pictures, whose channels are known.

    Returns:
        (H, W, 3) uint8; of an array a view.

    Raises:
        DeployError: the file or the picture cannot be read, or the array is not H x W x 3 uint8.
        UsageError: ``color`` is neither ``rgb`` nor ``bgr``.
    """
    if color is not None and color not in get_args(Color):
        raise UsageError(f"color is 'rgb' or 'bgr', not {color!r}", "PIL gives RGB, OpenCV BGR")
    if isinstance(image, _NOT_ARRAYS):
        own: Color = "rgb"
        pixels = rgb_of(image) if isinstance(image, Image.Image) else read_picture(image).rgb
    elif isinstance(image, np.ndarray):
        own, pixels = color or order, check_image(image)
    else:
        given = type(image).__name__
        hint = "of a tensor, pass its array: H x W x 3 uint8, channels last"
        if isinstance(image, Iterable) and not hasattr(image, "shape"):
            hint = "several pictures are given as a list: runner([first, second])"
        raise DeployError(
            f"a picture must be a numpy array, a file's path or a PIL picture, not {given}", hint
        )
    return pixels if own == order else pixels[:, :, ::-1]
