"""How answers of two graphs are compared, for each kind of model.

`quantize` compares FP16 and INT8 graphs with the FP32 graph: once on generated pictures to find
broken graphs (check.py), and with ``--sensitivity`` on the user's pictures to find costly blocks
(scale.py). semantic.py and instance.py say what an answer is and how two are compared;
:func:`task_of` is the only place that chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy.typing as npt

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.quantize.sensitivity import Measure
from pointrend_deploy.verbs.quantize.instance import InstanceTask
from pointrend_deploy.verbs.quantize.semantic import SemanticTask

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]
Answer = Any
"""What a graph finds in a picture; only the task that made it looks inside."""


class Agreement(Protocol):
    """How far the answers of a new graph agree with FP32's."""

    @property
    def pictures(self) -> int:
        """Number of pictures compared."""

    def line(self) -> str:
        """Describe the agreement in a few words for the terminal."""

    def note(self) -> str:
        """Return a warning about poor agreement, or an empty text."""


class Task(Protocol):
    """Compares answers of one kind of model."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of values that are computed before anything is decided, in graph order."""

    def predicted(self, prediction: Mapping[str, Any]) -> Answer:
        """Take the answer out of a runner's prediction."""

    def answer(self, outputs: Mapping[str, Array], picture: Fitted) -> Answer:
        """Compute the answer on the canvas from one picture's row of the graph's outputs."""

    def explaining(self, fp32: ModelProto) -> tuple[str, ...]:
        """Name the values of the first FP32 graph that explain differing answers."""

    def agreement(
        self,
        fp32: Sequence[Answer],
        made: Sequence[Answer],
        explained: Sequence[Sequence[Array]] = (),
    ) -> Agreement:
        """Compare the answers of two graphs for the same pictures in the same order.

        Args:
            fp32: FP32's answers.
            made: the new graph's answers.
            explained: by call of the FP32 graph, the values that :meth:`explaining` names.
        """

    def measure(self, fp32: Sequence[Answer]) -> Measure:
        """Define points lost for these answers of FP32.

        Raises:
            DeployError: FP32 finds nothing, so nothing can be lost.
        """

    def points_lost(self, fp32: Sequence[Answer], made: Iterable[Answer]) -> float:
        """Compute the points lost, 0..100; answers in ``made`` are taken one by one."""


TASKS: Final[Mapping[str, Callable[[Manifest], Task]]] = {
    "semantic": SemanticTask,
    "instance": InstanceTask,
}
"""The kinds of models by the ``task`` of their recipe."""


def task_of(manifest: Manifest) -> Task:
    """Return the task of a bundle's model."""
    return TASKS[manifest.recipe.task](manifest)
