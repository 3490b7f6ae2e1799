"""A semantic bundle in PyTorch: the reference model on the bundle's canvas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from pointrend_deploy.bundle import Bundle, sha256_of
from pointrend_deploy.errors import DeployError
from pointrend_deploy.manifest import Manifest
from pointrend_deploy.run.runner import BundleRunner

if TYPE_CHECKING:
    from torch import Tensor


class TorchRunner(BundleRunner):
    """The recipe's reference model with the bundle's weights; outputs named as the graph's.

    Args:
        bundle: where the recipe, the canvas and the outputs come from.
        weights: a checkpoint in place of the bundle's own. It must be the very file the manifest
            records: the bundle's safetensors file or the checkpoint it was exported from.

    Raises:
        DeployError: PyTorch is not installed, or the weights are missing or others.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, weights: str | Path | None = None) -> None:
        super().__init__(bundle)
        require_torch()
        from pointrend_deploy.model.architectures import load_model

        self.model = load_model(bundle.manifest.semantic, checked_weights(bundle, weights))

    def canvas_stages(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
        """Every stage of ``SemanticModel.canvas_stages``, and ``labels`` (N, Hp, Wp) uint8.

        Args:
            batch: the manifest's inputs by name, as ``infer`` takes them.
        """
        import torch

        with torch.inference_mode():
            stages = self.model.canvas_stages(network_input(self.bundle.manifest, batch))
            stages["labels"] = stages["logits"].argmax(dim=1).to(torch.uint8)
        return stages

    def _infer(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        stages = self.canvas_stages(batch)
        names = self.bundle.manifest.output_names
        if unknown := [name for name in names if name not in stages]:
            raise DeployError(
                f"the model has no stage called {', '.join(unknown)}, which the bundle exports",
                "export the bundle again with this version",
            )
        return {name: stages[name].numpy() for name in names}


def require_torch() -> None:
    """Raise DeployError, saying so plainly, where PyTorch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise DeployError(
            f"PyTorch cannot be imported: {error}", "pip install torch, or use --runner onnx"
        ) from error


def network_input(manifest: Manifest, batch: dict[str, npt.NDArray[Any]]) -> Tensor:
    """What the network sees of a bundle's inputs: (N, 3, Hp, Wp) float32, normalised and padded.

    Args:
        manifest: says where the pre-processing happens.
        batch: the manifest's inputs by name.
    """
    import torch

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


def checked_weights(bundle: Bundle, weights: str | Path | None) -> Path:
    """The weights file to read: the bundle's own, or the given one if the manifest knows its hash.

    Raises:
        DeployError: the bundle holds no weights and none are given, or the given ones are others.
    """
    record = bundle.manifest.weights
    if weights is None:
        if not record.included:
            raise DeployError(
                f"the bundle {bundle.path} was exported without its weights",
                f"give {record.source_name}, or the {record.file} made from it, with --weights",
            )
        return bundle.file(record.file)
    given = sha256_of(weights)
    if given not in (record.sha256, record.source_sha256):
        raise DeployError(
            f"{weights} is not the checkpoint this bundle was made from: its SHA-256 begins "
            f"{given[:12]}; the manifest knows {record.sha256[:12]} ({record.file}) and "
            f"{record.source_sha256[:12]} ({record.source_name})",
            f"give {record.source_name}, or the {record.file} made from it",
        )
    return Path(weights)
