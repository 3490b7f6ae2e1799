"""A bundle in PyTorch: the reference model on the bundle's canvas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pointrend_deploy.bundle.folder import Bundle, sha256_of
from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import problems, require
from pointrend_deploy.run.runner import Array, BundleRunner


class TorchRunner(BundleRunner):
    """The recipe's reference model with the bundle's weights; outputs named as the graph's.

    Args:
        bundle: the source of the recipe, the canvas and the outputs.
        weights: a checkpoint in place of the bundle's own. It must be a file that the manifest
            records: the bundle's safetensors file or the checkpoint it was exported from.

    Attributes:
        reference: the model with its stages; see ``reference.py`` of the task's folder.

    Raises:
        DeployError: PyTorch is not installed, or the weights are missing or of another model.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, weights: str | Path | None = None) -> None:
        super().__init__(bundle)
        usable = not problems("run --runner onnx")
        require("run --runner torch", "use --runner onnx" if usable else "")
        self.reference = self.task.reference(checked_weights(bundle, weights))

    @property
    def model(self) -> Any:
        """The reference model, in eval mode."""
        return self.reference.model

    def canvas_stages(self, batch: dict[str, Array]) -> Any:
        """Compute every stage of the model for a batch.

        Args:
            batch: the manifest's inputs by name, as ``infer`` takes them.

        Returns:
            Of a semantic bundle, the stages by name, each with the batch axis first; of an
            instance bundle, a list with the stages of each picture by name.
        """
        return self.reference.canvas_stages(batch)

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        return self.reference.outputs(self.canvas_stages(batch))


def checked_weights(bundle: Bundle, weights: str | Path | None) -> Path:
    """Choose the weights file to read, and check its SHA-256 against the manifest.

    Args:
        bundle: opened.
        weights: a file in place of the bundle's own; None for the bundle's own.

    Raises:
        DeployError: no file is given and the bundle has none, or the given one is another.
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
