"""From a picture to the network's input, as detectron2 does it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe import InputSpec


def network_input(image: NDArray[np.uint8], spec: InputSpec) -> Tensor:
    """Normalise a picture, then pad it with zeros, bottom and right.

    Args:
        image: H x W x 3 uint8 in ``spec.channel_order``.
        spec: mean, deviation and the multiple to pad to.

    Returns:
        (1, 3, H', W') float32, H' and W' the next multiples of ``spec.size_divisibility``.

    Raises:
        DeployError: another shape or dtype, or an empty picture.
    """
    if not isinstance(image, np.ndarray):
        raise DeployError(
            f"a picture is an H x W x 3 uint8 array, not a {type(image).__name__}",
            f"np.asarray(picture) in {spec.channel_order} order",
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise DeployError(
            f"a picture is H x W x 3 uint8, not {image.dtype} of shape {tuple(image.shape)}",
            f"convert it to {spec.channel_order} uint8 first",
        )
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(torch.float32)
    mean = torch.tensor(spec.pixel_mean).view(3, 1, 1)
    std = torch.tensor(spec.pixel_std).view(3, 1, 1)
    x = ((x - mean) / std).unsqueeze(0)
    bottom = -x.shape[2] % spec.size_divisibility
    right = -x.shape[3] % spec.size_divisibility
    return F.pad(x, (0, right, 0, bottom))


def check_out_hw(out_hw: tuple[int, int] | None) -> None:
    """Refuse anything but a positive height and width, or None.

    Raises:
        DeployError: saying what was given.
    """
    if out_hw is None:
        return
    good = isinstance(out_hw, tuple | list) and len(out_hw) == 2
    if not good or not all(type(side) is int and side >= 1 for side in out_hw):
        raise DeployError(
            f"out_hw must be two positive integers, height and width, not {out_hw!r}",
            "pass (height, width), as Python integers",
        )
