"""What an export does differently for each kind of model, and the choice between the kinds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import UsageError
from pointrend_deploy.progress import Progress
from pointrend_deploy.recipe.read import AnyRecipe
from pointrend_deploy.verbs.export.instance import InstanceExport
from pointrend_deploy.verbs.export.options import ExportOptions
from pointrend_deploy.verbs.export.semantic import SemanticExport

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.model.reference import ReferenceModel
    from pointrend_deploy.parity.exported import VerificationBatch
    from pointrend_deploy.parity.record.runs import Run


class ExportTask(Protocol):
    """The export of one model, whatever its kind. Its methods are called in this order.

    Args:
        recipe: of the model.
        options: its sizes are in range.

    Raises:
        DeployError: the options do not fit the recipe.
    """

    own_options: ClassVar[tuple[str, ...]]
    """Those fields of :class:`ExportOptions` that not every kind of model has."""

    def __init__(self, recipe: Any, options: ExportOptions) -> None: ...

    def load(self, weights: Path) -> ReferenceModel:
        """Read a checkpoint into the reference model, in eval mode.

        Raises:
            DeployError: it cannot be read or does not fit the recipe.
        """

    def trace(self) -> dict[str, ModelProto]:
        """Trace the graphs of the bundle, by file name; the first one takes the picture.

        Raises:
            DeployError: a graph breaks its contract.
        """

    def described(self, manifest: Manifest, graphs: dict[str, ModelProto]) -> Manifest:
        """Add to a manifest what only this kind of model has."""

    def verify(
        self, graphs: dict[str, ModelProto], batch: VerificationBatch, progress: Progress
    ) -> Run:
        """Compare the graphs in ONNX Runtime with the reference, stage by stage.

        Raises:
            ParityError: they differ; it names the first stage that does.
        """

    @staticmethod
    def summary_lines(manifest: Manifest) -> list[str]:
        """Say what only this kind of model has, for the terminal."""

    @staticmethod
    def notes(manifest: Manifest) -> list[str]:
        """Say what the user should know of the choices that were made, a sentence each."""

    @staticmethod
    def agreement(run: Run) -> str:
        """Say in a few words how well the verification agrees."""


TASKS: Final[dict[str, type[ExportTask]]] = {
    "semantic": SemanticExport,
    "instance": InstanceExport,
}
"""How models are exported, by the ``task`` of their recipe."""


def export_task(recipe: AnyRecipe, options: ExportOptions) -> ExportTask:
    """Begin the export of a recipe's model.

    Raises:
        UsageError: an option is out of range, or this kind of model does not have it.
        DeployError: no graph can be made for these options.
    """
    options.check()
    kind = TASKS[recipe.task]
    for option in sorted({name for each in TASKS.values() for name in each.own_options}):
        if option in kind.own_options or getattr(options, option) is None:
            continue
        having = [task for task, each in TASKS.items() if option in each.own_options]
        raise UsageError(
            f"--{option} is an option of {' and '.join(having)} models, and {recipe.name} is a "
            f"recipe of task {recipe.task}",
            f"leave --{option} out; such a recipe has "
            + ", ".join(f"--{own}" for own in kind.own_options),
        )
    return kind(recipe, options)
