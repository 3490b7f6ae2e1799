"""A semantic bundle in PyTorch: the reference model on the bundle's canvas.

MERGED: An instance bundle in PyTorch: the reference model on the bundle's canvas, picture by picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle, sha256_of
from pointrend_deploy.bundle.manifest import TensorSpec
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.instance.instances import OUTPUTS
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
        from pointrend_deploy.model.semantic.model import load_model

        self.model = load_model(bundle.manifest.semantic, checked_weights(bundle, weights))

    def canvas_stages(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
        """Every stage of ``SemanticModel.canvas_stages``, and ``labels`` (N, Hp, Wp) uint8.

        Args:
            batch: the manifest's inputs by name, as ``infer`` takes them.
        """
        import torch

        from pointrend_deploy.model.network_input import canvas_input

        with torch.inference_mode():
            stages = self.model.canvas_stages(canvas_input(self.bundle.manifest, batch))
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


Array = npt.NDArray[Any]
Stages = dict[str, "Tensor"]


class TorchInstanceRunner(BundleRunner):
    """The recipe's reference model with the bundle's weights; outputs named as the graph's.

    The model keeps the bundle's number of detections, whatever the recipe says.

    Args:
        bundle: where the recipe, the canvas and the outputs come from.
        weights: a checkpoint in place of the bundle's own; see
            :class:`pointrend_deploy.run.backends.pytorch.TorchRunner`.

    Raises:
        DeployError: PyTorch is not installed, or the weights are missing or others.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, weights: str | Path | None = None) -> None:
        super().__init__(bundle)
        require_torch()
        from pointrend_deploy.model.instance.model import load_instance_model

        recipe, self._export = bundle.manifest.instances
        box_head = msgspec.structs.replace(recipe.box_head, detections=self._export.detections)
        self._recipe = msgspec.structs.replace(recipe, box_head=box_head)
        self.model = load_instance_model(self._recipe, checked_weights(bundle, weights))

    def canvas_stages(self, batch: dict[str, Array]) -> list[Stages]:
        """The stages of ``InstanceModel.canvas_stages`` for each picture of a batch.

        Args:
            batch: the manifest's inputs by name, as ``infer`` takes them.

        Returns:
            By picture; R, its number of detections, and P, its number of proposals, differ from
            one to the other.
        """
        import torch

        from pointrend_deploy.model.network_input import canvas_input

        with torch.inference_mode():
            x = canvas_input(self.bundle.manifest, batch)
            return [
                self.model.canvas_stages(x[row : row + 1], (int(height), int(width)))
                for row, (height, width) in enumerate(batch["extent"])
            ]

    def outputs(self, pictures: Sequence[Stages]) -> dict[str, Array]:
        """What the bundle gives for these stages: its outputs by name, of its shapes and dtypes.

        Args:
            pictures: the stages of each picture of a batch, from :meth:`canvas_stages`.

        Returns:
            The five outputs of every instance bundle, then the manifest's further ones; rows past
            a picture's detections (or proposals) are zero.

        Raises:
            DeployError: the manifest lists an output that the model does not have.
        """
        found = [self._answers(stages) for stages in pictures]
        specs = {spec.name: spec for spec in self.bundle.manifest.outputs}
        specs.setdefault("masks", self._mask_spec())  # a split layout's detector does not list it
        names = (*OUTPUTS, *(name for name in specs if name not in OUTPUTS))
        if unknown := [name for name in names if any(name not in row for row in found)]:
            raise DeployError(
                f"the model has no stage called {', '.join(unknown)}, which the bundle exports",
                "export the bundle again with this version",
            )
        return {
            name: np.stack([_padded(row[name], specs[name]) for row in found]) for name in names
        }

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        return self.outputs(self.canvas_stages(batch))

    def _answers(self, stages: Stages) -> dict[str, Array]:
        """The stages as arrays, with what the graph gives beside them; no batch axis yet."""
        import torch

        answers = {name: stage.numpy() for name, stage in stages.items()}
        for name in self._recipe.pyramid:
            answers[name] = answers[name][0]
        logits = stages["mask_logits"][:, 0]
        answers["mask_logits"] = logits.numpy()
        answers["masks"] = answers["mask_logits"]
        if self._export.masks == "prob":
            answers["masks"] = logits.sigmoid().numpy()
        elif self._export.masks == "prob-u8":
            answers["masks"] = (logits.sigmoid() * 255).round().to(torch.uint8).numpy()
        answers["num_detections"] = np.array(len(stages["boxes"]), np.int64)
        answers["proposal_count"] = np.array(len(stages["proposals"]), np.int64)
        return answers

    def _mask_spec(self) -> TensorSpec:
        side, masks = self._export.mask_side, self._export.masks
        return TensorSpec(
            name="masks",
            dtype="uint8" if masks == "prob-u8" else "float32",
            shape=(self.bundle.manifest.canvas.batch, self._export.detections, side, side),
        )


def _padded(array: Array, spec: TensorSpec) -> Array:
    """One picture's array in the shape the manifest gives it: zeros in the rows past its own.

    Raises:
        DeployError: it has more rows, or rows of another shape.
    """
    wanted = spec.shape[1:]
    fits = array.ndim == len(wanted) and array.shape[1:] == wanted[1:]
    if not fits or array.shape > wanted:
        raise DeployError(
            f"the model's {spec.name} has shape {list(array.shape)}, the bundle's {list(wanted)}",
            "export the bundle again with this version",
        )
    padded = np.zeros(wanted, spec.dtype)
    padded[(slice(len(array)),) if wanted else ()] = array
    return padded
