"""The verification of an export: what it shares between semantic and instance models."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt
import onnx

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.graph.slices import with_outputs
from pointrend_deploy.onnx_session import call, open_session, runtime_version
from pointrend_deploy.parity.comparison import VerificationResult
from pointrend_deploy.parity.record.runs import Run, now
from pointrend_deploy.pictures.canvas import Fitted, batch_of

Array = npt.NDArray[Any]
T = TypeVar("T")
_REPORT = "please report this with the recipe and the command line"


@dataclass(frozen=True)
class VerificationBatch:
    """The pictures an export is verified on.

    Attributes:
        manifest: of the bundle to be.
        pictures: 1 to N pictures fitted to its canvas, N its batch.
    """

    manifest: Manifest
    pictures: list[Fitted]

    def inputs(self) -> dict[str, Array]:
        """Stack the pictures into the graph's inputs, by name, the last one repeated up to N."""
        return batch_of(self.pictures, self.manifest)

    def filled(self, each: list[T]) -> list[T]:
        """Repeat the last of one value a picture, so that there are N."""
        return each + each[-1:] * (self.manifest.canvas.batch - len(each))


def run_with_stages(
    graph: onnx.ModelProto, inputs: Mapping[str, Array], stages: Iterable[str]
) -> dict[str, Array]:
    """Run an exported graph once in ONNX Runtime, with inner values as outputs besides its own.

    Args:
        graph: not changed.
        inputs: by name.
        stages: names of inner values; those the graph does not compute are left out.

    Returns:
        Its outputs, then the stages, by name.

    Raises:
        DeployError: ONNX Runtime does not load or run it.
    """
    raw, names = with_outputs(graph, stages)
    session = open_session(raw, hint=_REPORT)
    del raw
    failure = f"ONNX Runtime {runtime_version()} does not run the exported graph"
    return dict(zip(names, call(session, names, inputs, failure, _REPORT), strict=True))


def check_loads(graph: onnx.ModelProto) -> None:
    """Raise DeployError where ONNX Runtime does not load a graph."""
    open_session(graph.SerializeToString(), hint=_REPORT)


def export_run(result: VerificationResult, batch: VerificationBatch, started: float) -> Run:
    """Make the record of a verification in which everything passed.

    Args:
        result: of the verification.
        batch: the pictures it was made on.
        started: ``time.monotonic()`` when it began.

    Raises:
        ParityError: something did not pass; it names the first stage that differs.
    """
    import torch

    result.raise_if_failed()
    return Run(
        kind="export",
        passed=result.passed,
        candidate="onnx",
        reference="torch",
        created=now(),
        canvas_hw=batch.manifest.canvas.padded_hw,
        first_divergent=result.first_divergent,
        pictures=len(batch.pictures),
        seconds=round(time.monotonic() - started, 3),
        stages=result.stages,
        points=result.points,
        gates=result.gates,
        versions={"torch": str(torch.__version__), "onnxruntime": runtime_version()},
    )
