"""From a picture to the network's input, as detectron2 does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.parts import InputSpec


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
            f"of a file, np.array(Image.open(path).convert('RGB')){_order(spec)}; a runner of "
            "open_runner takes paths and PIL pictures too",
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


def _order(spec: InputSpec) -> str:
    """What turns an array of RGB into the order that the network was trained with."""
    return "" if spec.channel_order == "RGB" else "[:, :, ::-1]"


def check_called_with(x: object) -> None:
    """Refuse anything but a batch of network inputs, where a model is called.

    Raises:
        DeployError: ``x`` is not an (N, 3, H, W) floating-point tensor.
    """
    if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == 3 and x.is_floating_point():
        return
    given = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
    raise DeployError(
        f"a model is called with its network input, (N, 3, H, W) float, not {given}",
        "model.stages(picture) takes a picture; model.network_input(picture) makes the input of it",
    )


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


class Normalise(nn.Module):
    """Pre-processing inside the graph: (N, H, W, 3) uint8 -> (N, 3, H, W) float32.

    The same arithmetic as outside, (x - mean) / std in float32, then zeros beyond the picture.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.pixel_mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.pixel_std).view(1, 3, 1, 1))

    def forward(self, image: Tensor, extent: Tensor) -> Tensor:
        """Normalise ``image``; ``extent`` (N, 2) int64 is the (height, width) of each picture."""
        n, height, width, _ = image.shape
        # Cast first: TensorRT takes uint8 into a Cast and nowhere else.
        x = (image.to(torch.float32).permute(0, 3, 1, 2) - self.mean) / self.std
        rows = torch.arange(height).view(1, 1, height, 1) < extent[:, 0].view(n, 1, 1, 1)
        columns = torch.arange(width).view(1, 1, 1, width) < extent[:, 1].view(n, 1, 1, 1)
        return torch.where(rows & columns, x, torch.zeros((), dtype=torch.float32))


def canvas_input(manifest: Manifest, batch: dict[str, npt.NDArray[Any]]) -> Tensor:
    """Turn a bundle's inputs into the network's: (N, 3, Hp, Wp) float32, normalised and padded.

    Args:
        manifest: says whether the pre-processing happens outside the graph or inside.
        batch: the manifest's inputs by name.
    """
    image, *extent = (torch.from_numpy(batch[spec.name]) for spec in manifest.inputs)
    if manifest.preprocess.location == "outside":
        return image
    mean = torch.tensor(manifest.preprocess.pixel_mean).view(3, 1, 1)
    std = torch.tensor(manifest.preprocess.pixel_std).view(3, 1, 1)
    x = (image.permute(0, 3, 1, 2).to(torch.float32) - mean) / std
    padded_h, padded_w = manifest.canvas.padded_hw
    rows = torch.arange(padded_h) < extent[0][:, :1]
    columns = torch.arange(padded_w) < extent[0][:, 1:]
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    # channels first in memory too: another layout picks other kernels, which round differently
    return torch.where(inside, x, torch.zeros(())).contiguous()
