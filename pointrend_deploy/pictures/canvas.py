"""From a picture to the network's input: fitted inside the canvas, normalised, then padded.

The order matters: the padding is zero *after* normalisation, as in detectron2 (rcnn.py and
semantic_seg.py normalise each image and leave the padding to ``ImageList``). Where the bundle was
exported with pre-processing in the graph, the picture stays uint8, and the graph gets the fitted
area (``extent``) to zero the rest after its own normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.bundle.manifest import Manifest, Preprocess
from pointrend_deploy.errors import DeployError

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
HW = tuple[int, int]


@dataclass(frozen=True)
class Fitted:
    """One picture on the canvas.

    Attributes:
        array: (3, Hp, Wp) float32, normalised and zero-padded at the bottom and right; or, with
            pre-processing in the graph, (Hp, Wp, 3) uint8 in the recipe's channel order, 0 outside
            the fitted area.
        fitted_hw: height and width of the picture on the canvas (its top left corner is 0, 0).
        picture_hw: the picture's own height and width.
    """

    array: Float32 | UInt8
    fitted_hw: HW
    picture_hw: HW


def check_image(image: object) -> UInt8:
    """Check that an image is an H x W x 3 uint8 array with at least one pixel, and return it.

    Raises:
        DeployError: it is anything else; the message says what it is, the hint how to convert it.
    """
    if not isinstance(image, np.ndarray):
        raise DeployError(
            f"a picture must be a numpy array, not {type(image).__name__}",
            "read files with pointrend_deploy.pictures.files.read_picture(path).rgb",
        )
    found = f"this one has shape {image.shape} and dtype {image.dtype}"
    if image.ndim == 2:
        hint = "for a grey picture, pass np.repeat(grey[:, :, None], 3, axis=2)"
    elif image.ndim == 3 and image.shape[2] == 4:
        hint = "drop the alpha channel: image[:, :, :3]"
    elif image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        hint = "channels come last: image.transpose(1, 2, 0)"
    elif image.dtype != np.uint8:
        hint = "values run from 0 to 255 in uint8: scale and round, then .astype(np.uint8)"
    else:
        hint = "pass the array of one picture, or a list of such arrays"
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DeployError(f"a picture must be an H x W x 3 uint8 array; {found}", hint)
    if image.size == 0:
        raise DeployError(f"a picture must have at least one pixel; {found}")
    return image


def fitted_hw(picture_hw: HW, size_hw: HW) -> HW:
    """Compute the largest size inside ``size_hw`` with the aspect ratio of ``picture_hw``.

    One side takes the canvas's length exactly; the other is rounded half up, in integers, to at
    least 1 and at most the canvas's length.
    """
    height, width = picture_hw
    size_h, size_w = size_hw
    if size_h * width <= size_w * height:
        other = (2 * width * size_h + height) // (2 * height)
        return size_h, min(max(other, 1), size_w)
    other = (2 * height * size_w + width) // (2 * width)
    return min(max(other, 1), size_h), size_w


def resize_image(image: UInt8, hw: HW) -> UInt8:
    """Resize with Pillow's bilinear filter, as detectron2's ResizeTransform.

    The kernel is widened when shrinking. A picture of the new size already is not resampled.

    Args:
        image: (H, W, 3) uint8.
        hw: the new height and width.
    """
    if image.shape[:2] == hw:
        return image
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(
        (hw[1], hw[0]), Image.Resampling.BILINEAR
    )
    return np.array(resized)


def normalise(image: UInt8, preprocess: Preprocess) -> Float32:
    """Normalise (H, W, 3) uint8 in the recipe's order to (3, H, W) float32, (x - mean) / std.

    Every step is rounded to float32, as detectron2's tensors are.
    """
    mean = np.asarray(preprocess.pixel_mean, np.float32).reshape(3, 1, 1)
    std = np.asarray(preprocess.pixel_std, np.float32).reshape(3, 1, 1)
    planes: Float32 = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
    planes -= mean
    planes /= std
    return planes


def fit(image: UInt8, manifest: Manifest) -> Fitted:
    """Put one picture on the bundle's canvas.

    Args:
        image: (H, W, 3) uint8 in the recipe's channel order; see ``from_rgb``.
        manifest: the bundle's; its ``canvas`` and ``preprocess`` are used.

    Raises:
        DeployError: the array is not such a picture.
    """
    image = check_image(image)
    picture: HW = (image.shape[0], image.shape[1])
    hw = fitted_hw(picture, manifest.canvas.size_hw)
    resized = resize_image(image, hw)
    padded_h, padded_w = manifest.canvas.padded_hw
    canvas: Float32 | UInt8
    if manifest.preprocess.location == "in-graph":
        canvas = np.zeros((padded_h, padded_w, 3), np.uint8)
        canvas[: hw[0], : hw[1]] = resized
    else:
        canvas = np.zeros((3, padded_h, padded_w), np.float32)
        canvas[:, : hw[0], : hw[1]] = normalise(resized, manifest.preprocess)
    return Fitted(canvas, hw, picture)


def from_rgb(rgb: UInt8, manifest: Manifest) -> UInt8:
    """Put an RGB picture, (H, W, 3), in the recipe's channel order."""
    return rgb[:, :, ::-1] if manifest.preprocess.channel_order == "BGR" else rgb


def batch_of(pictures: Sequence[Fitted], manifest: Manifest) -> dict[str, npt.NDArray[Any]]:
    """Stack 1..N fitted pictures into the graph's inputs; a short batch repeats its last picture.

    Args:
        pictures: from :func:`fit`, with the same manifest.
        manifest: the bundle's.

    Returns:
        By the names in the manifest: the pictures and, for pre-processing in the graph, their
        extent (N, 2) int64, the fitted height and width of each.

    Raises:
        DeployError: there is no picture, or more than N.
    """
    count = manifest.canvas.batch
    if not 1 <= len(pictures) <= count:
        raise DeployError(
            f"a batch of this bundle takes 1 to {count} pictures, not {len(pictures)}"
        )
    full = [*pictures, *[pictures[-1]] * (count - len(pictures))]
    image, *extent = manifest.inputs
    inputs: dict[str, npt.NDArray[Any]] = {
        image.name: np.stack([picture.array for picture in full])
    }
    for spec in extent:
        inputs[spec.name] = np.array([picture.fitted_hw for picture in full], np.int64)
    return inputs
