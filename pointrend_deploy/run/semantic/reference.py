"""The PyTorch model of a semantic bundle, on the bundle's canvas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointrend_deploy.bundle.folder import choices_of_export
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.run.results import need_stages
from pointrend_deploy.run.writer import Array

if TYPE_CHECKING:
    from torch import Tensor


class SemanticReference:
    """The recipe's reference model; its outputs have the names of the graph's.

    Args:
        manifest: the source of the recipe, the canvas and the outputs' names.
        weights: the file with the weights.

    Attributes:
        model: a ``SemanticModel`` in eval mode.

    Raises:
        DeployError: the weights cannot be read or do not fit the recipe.
    """

    def __init__(self, manifest: Manifest, weights: Path) -> None:
        from pointrend_deploy.model.semantic.model import load_model

        self._manifest = manifest
        choices = choices_of_export(manifest.weights, weights)
        self.model: Any = load_model(manifest.semantic, weights, **choices)

    def canvas_stages(self, batch: dict[str, Array]) -> dict[str, Tensor]:
        """Compute every stage of ``SemanticModel.canvas_stages``, and the labels.

        Args:
            batch: the manifest's inputs by name, as ``infer`` takes them.

        Returns:
            By name: the model's stages, then ``labels`` (N, Hp, Wp) uint8.
        """
        import torch

        from pointrend_deploy.model.network_input import canvas_input

        with torch.inference_mode():
            stages: dict[str, Tensor] = self.model.canvas_stages(
                canvas_input(self._manifest, batch)
            )
            stages["labels"] = stages["logits"].argmax(dim=1).to(torch.uint8)
        return stages

    def outputs(self, stages: dict[str, Tensor]) -> dict[str, Array]:
        """Choose the bundle's outputs among the stages.

        Raises:
            DeployError: the manifest lists an output that the model does not have.
        """
        names = self._manifest.output_names
        need_stages(names, stages)
        return {name: stages[name].numpy() for name in names}
