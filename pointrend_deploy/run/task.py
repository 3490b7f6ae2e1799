"""A kind of model as a run sees it, and the one place that chooses it.

A further kind of model is a folder beside ``semantic`` and ``instance`` whose class has the members
of :class:`RunTask`, and one line in :data:`TASKS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pointrend_deploy.bundle.manifest import GraphEnds, Manifest
from pointrend_deploy.pictures.canvas import Fitted, UInt8
from pointrend_deploy.run.instance.task import InstanceTask
from pointrend_deploy.run.prediction import Prediction
from pointrend_deploy.run.semantic.task import SemanticTask
from pointrend_deploy.run.writer import Array, GraphCall, PictureOptions, PictureWriter


class Reference(Protocol):
    """The PyTorch model of a bundle's recipe, called with the bundle's inputs."""

    @property
    def model(self) -> Any:
        """The reference model, in eval mode."""

    def canvas_stages(self, batch: dict[str, Array]) -> Any:
        """Compute every stage of the model for a batch, in the form the task uses."""

    def outputs(self, stages: Any) -> dict[str, Array]:
        """Turn the stages of a batch into the bundle's outputs by name."""


class RunTask(Protocol):
    """What a run does differently for each kind of model.

    Attributes:
        name: the recipe's ``task``.
        keys: of every prediction, whatever the bundle exports; the first is the answer itself.
        owned: files and folders that a run writes in the folder for the results, beside
            ``results.json``.
    """

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    owned: ClassVar[tuple[str, ...]]

    def __init__(self, manifest: Manifest) -> None:
        """Take the manifest of a bundle of this task."""

    def fit(self, image: UInt8) -> Fitted:
        """Put a picture, H x W x 3 uint8 in the recipe's channel order, on the canvas."""

    def graphs(self) -> tuple[GraphEnds, ...]:
        """List what each of the bundle's graphs takes and gives, in the order they run."""

    def infer(self, calls: Sequence[GraphCall], batch: dict[str, Array]) -> dict[str, Array]:
        """Run the bundle's graphs on one batch.

        Args:
            calls: a call for each of :meth:`graphs`, in that order.
            batch: the manifest's inputs by name, checked.

        Returns:
            The bundle's outputs by name, the batch axis first.
        """

    def finish(self, outputs: Mapping[str, Array], row: int, picture: Fitted) -> Prediction:
        """Make the prediction, at the picture's own size, from one row of a batch's outputs.

        Raises:
            DeployError: the outputs cannot be right.
        """

    def check(self, options: PictureOptions) -> None:
        """Raise UsageError where an option makes no sense for this task."""

    def writer(self, out: Path, options: PictureOptions, files: Sequence[Path]) -> PictureWriter:
        """Make the writer of the results of a run over ``files`` into the folder ``out``."""

    def reference(self, weights: Path) -> Reference:
        """Build the PyTorch model with the weights of a file; PyTorch must be installed."""

    @staticmethod
    def summary(pictures: Sequence[Any], out: Path) -> tuple[str, ...]:
        """Say in a few lines what a run found.

        Args:
            pictures: the rows of ``results.json``, at least one.
            out: the folder with the results.

        Returns:
            Where the results are, as part of a sentence, then further lines.
        """


TASKS: dict[str, type[RunTask]] = {
    "semantic": SemanticTask,
    "instance": InstanceTask,
}
"""The kinds of model by the recipe's ``task``."""


def task_of(manifest: Manifest) -> RunTask:
    """Choose the task of a bundle by its recipe."""
    return TASKS[manifest.recipe.task](manifest)
