"""How the figures of one task are shown, chosen here from the task of a record or a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Parity, Run
from pointrend_deploy.report.figures import Fact
from pointrend_deploy.report.gallery.tiles import Gallery
from pointrend_deploy.report.instance import InstanceReport
from pointrend_deploy.report.precision_rows import Group
from pointrend_deploy.report.semantic import SemanticReport


class ReportTask(Protocol):
    """One task's words, figures and templates.

    Attributes:
        folder: of its templates, below ``templates/``.
        answers: what `run` writes, in words.
        truth: what `compare` takes as the truth, in words.
        truth_option: the option of `compare` for it.
        points_note: where points of refinement are chosen, after a comma; may be empty.
        many_pictures: how the figures of several pictures are put together.
        boundary_note: what its boundary score means.
        worst_note: which pictures are drawn, and in which order.
    """

    folder: str
    answers: str
    truth: str
    truth_option: str
    points_note: str
    many_pictures: str
    boundary_note: str
    worst_note: str

    def describe(self, manifest: Manifest) -> str:
        """Return what the bundle gives, for the first line of a report; may be empty.

        A text that is not empty ends with a comma and a space.
        """
        ...

    def agrees_in(self, run: Run) -> str:
        """Return what agrees with PyTorch in a run that passed."""
        ...

    def facts(self, parity: Parity, run: Run) -> list[Fact]:
        """Return the figures in large type at the head of a report.

        Args:
            parity: the record.
            run: the run of the record that they are taken from.
        """
        ...

    def scores(self, run: Run | None) -> dict[str, Any]:
        """Return the variables of the templates of scores.

        They are ``scored`` (whether there are any scores), ``chart`` (an SVG, built from escaped
        text and numbers only; empty without a truth), and the task's own.
        """
        ...

    def pictures(self, run: Run) -> Sequence[Any]:
        """Return the rows of single pictures, worst first."""
        ...

    def score_groups(self, table: PrecisionTable) -> list[Group]:
        """Return the groups of the task's own figures in a table of precisions."""
        ...

    def lines(self, run: Run) -> list[str]:
        """Return the figures of a run as lines for the terminal."""
        ...

    def gallery(self, manifest: Manifest) -> Gallery:
        """Return what draws the pictures of a comparison; it is called with each that was seen."""
        ...

    def unexplained(self, run: Run) -> tuple[str, ...]:
        """Return a few words on each difference that no near tie explains."""
        ...


TASKS: Final[Mapping[str, ReportTask]] = {
    "semantic": SemanticReport(),
    "instance": InstanceReport(),
}


def report_task(task: str) -> ReportTask:
    """Return how the figures of a task are shown.

    Args:
        task: of a recipe, a run or a table of precisions.
    """
    return TASKS[task]
