"""The PyTorch model of an instance bundle, on the bundle's canvas, picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from pointrend_deploy.bundle.folder import choices_of_export
from pointrend_deploy.bundle.manifest import Manifest, TensorSpec
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.instance.instances import OUTPUTS
from pointrend_deploy.run.results import need_stages
from pointrend_deploy.run.writer import Array

if TYPE_CHECKING:
    from torch import Tensor

Stages = dict[str, "Tensor"]


class InstanceReference:
    """The recipe's reference model; its outputs have the names of the graph's.

    The model keeps as many detections as the bundle does, whatever number the recipe has.

    Args:
        manifest: the source of the recipe, the canvas and the outputs.
        weights: the file with the weights.

    Attributes:
        model: an ``InstanceModel`` in eval mode.

    Raises:
        DeployError: the weights cannot be read or do not fit the recipe.
    """

    def __init__(self, manifest: Manifest, weights: Path) -> None:
        from pointrend_deploy.model.instance.model import load_instance_model

        self._manifest = manifest
        recipe, self._export = manifest.instances
        box_head = msgspec.structs.replace(recipe.box_head, detections=self._export.detections)
        self._recipe = msgspec.structs.replace(recipe, box_head=box_head)
        choices = choices_of_export(manifest.weights, weights)
        self.model: Any = load_instance_model(self._recipe, weights, **choices)

    def canvas_stages(self, batch: dict[str, Array]) -> list[Stages]:
        """Compute the stages of ``InstanceModel.canvas_stages`` for each picture of a batch.

        Args:
            batch: the manifest's inputs by name, as ``infer`` takes them.

        Returns:
            The stages of each picture by name. R, the number of detections, and P, the number of
            proposals, differ between pictures.
        """
        import torch

        from pointrend_deploy.model.network_input import canvas_input

        with torch.inference_mode():
            x = canvas_input(self._manifest, batch)
            return [
                self.model.canvas_stages(x[row : row + 1], (int(height), int(width)))
                for row, (height, width) in enumerate(batch["extent"])
            ]

    def outputs(self, stages: Sequence[Stages]) -> dict[str, Array]:
        """Turn the stages of a batch into the bundle's outputs, in its shapes and dtypes.

        Args:
            stages: of each picture of a batch, from :meth:`canvas_stages`.

        Returns:
            The five outputs of every instance bundle, then the manifest's further ones; rows past
            a picture's detections (or proposals) are zero.

        Raises:
            DeployError: the manifest lists an output that the model does not have.
        """
        found = [self._answers(each) for each in stages]
        specs = {spec.name: spec for spec in self._manifest.outputs}
        specs.setdefault("masks", self._mask_spec())  # a split layout's detector does not list it
        names = (*OUTPUTS, *(name for name in specs if name not in OUTPUTS))
        for row in found:
            need_stages(names, row)
        return {
            name: np.stack([_padded(row[name], specs[name]) for row in found]) for name in names
        }

    def _answers(self, stages: Stages) -> dict[str, Array]:
        """Turn a picture's stages into arrays without batch axis; add the graph's other outputs."""
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
            shape=(self._manifest.canvas.batch, self._export.detections, side, side),
        )


def _padded(array: Array, spec: TensorSpec) -> Array:
    """Pad one picture's array with rows of zeros to the shape the manifest gives it.

    Raises:
        DeployError: the array has more rows than that, or rows of another shape.
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
