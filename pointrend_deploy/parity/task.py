"""How bundles of one task are compared with PyTorch, chosen here from the recipe's task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.parity.columns import Columns
from pointrend_deploy.parity.comparison import Candidate, CompareOptions, Progress
from pointrend_deploy.parity.instance.task import InstanceParity
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.semantic.task import SemanticParity

Given = TypeVar("Given")
Reference = TypeVar("Reference")
Counting = TypeVar("Counting")
Seen_co = TypeVar("Seen_co", covariant=True)


class ParityTask(Protocol[Given, Reference, Counting, Seen_co]):
    """One task's comparison, step by step.

    ``Given`` is the pictures and their truth, ``Reference`` the PyTorch side, ``Counting`` the sums
    of `--precision`, and ``Seen`` both sides' answers for one picture.
    """

    def open_truth(self, bundle: Bundle, images: str | Path, options: CompareOptions) -> Given:
        """List the pictures, and read and check their truth where one is given.

        Args:
            bundle: the bundle.
            images: a picture or a folder of pictures.
            options: name the truth.

        Raises:
            DeployError: the pictures or the truth cannot be used.
        """
        ...

    def open_reference(self, bundle: Bundle, weights: str | Path | None) -> Reference:
        """Open the PyTorch model of the bundle.

        Raises:
            DeployError: PyTorch is not installed, or the weights are missing or others.
        """
        ...

    def open_counting(self, columns: Columns, given: Given) -> Counting:
        """Return what counts the figures of every precision during a comparison."""
        ...

    def compare(
        self,
        candidate: Candidate,
        reference: Reference,
        given: Given,
        seen: Callable[[Seen_co], None],
        counting: Counting | None,
        versions: Mapping[str, str],
        progress: Progress,
    ) -> Run:
        """Compare the candidate with the reference.

        Args:
            candidate: a runner of the bundle.
            reference: from :meth:`open_reference`.
            given: from :meth:`open_truth`.
            seen: called with both sides' answers for every picture.
            counting: from :meth:`open_counting`; None where no precisions are compared.
            versions: of the libraries that run, for the record.
            progress: see :data:`pointrend_deploy.parity.comparison.Progress`.

        Raises:
            DeployError: not one picture could be compared.
        """
        ...

    def table(self, columns: Columns, counting: Counting, run: Run) -> PrecisionTable:
        """Return the figures of every precision after a comparison."""
        ...


TASKS: Final[Mapping[str, ParityTask[Any, Any, Any, Any]]] = {
    "semantic": SemanticParity(),
    "instance": InstanceParity(),
}


def parity_task(bundle: Bundle) -> ParityTask[Any, Any, Any, Any]:
    """Return how this bundle is compared, by the task of its recipe."""
    return TASKS[bundle.manifest.recipe.task]
