"""Comparing a bundle with its PyTorch reference: the options, and the loop over pictures.

Both sides get exactly the same batch on the network's canvas, so nothing but the graph, and what
runs it, can make their answers differ. What is compared depends on the task: see
:class:`pointrend_deploy.parity.task.ParityTask`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, ParityError, UsageError
from pointrend_deploy.parity.record.runs import Gate, PointsRow, Run, Skipped, StageRow, now
from pointrend_deploy.parity.tensors import first_divergent
from pointrend_deploy.pictures.canvas import Fitted, batch_of, fit, from_rgb
from pointrend_deploy.pictures.files import read_picture

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]
CandidateName = Literal["auto", "onnx", "tensorrt"]
Progress = Callable[[int, int, str], None]
"""Called with the number of pictures done, their number in all, and the current one's name."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """How a bundle is compared.

    Attributes:
        labels: for a semantic bundle, true label maps with the pictures' stems, or a Cityscapes
            gtFine folder; for an instance bundle, a gtFine folder with instance ids.
        coco: for an instance bundle, a COCO annotation file; only its pictures are compared.
        runner: the side that is compared with PyTorch: ONNX Runtime, an engine of the bundle, or
            with ``auto`` an engine of the precision where one fits and ONNX Runtime otherwise.
        engine: the engine's folder under ``engines/``; None for the only one that fits.
        precisions: the precisions to compare, one column for each, or ``all`` alone. The FP32
            graph is always compared. None compares ``runner``'s own graph or engine only.
        weights: the checkpoint of a bundle that was exported without its weights.
        out: the folder for the record and the report; None for the bundle itself.

    Raises:
        UsageError: an unknown runner, or both kinds of truth.
    """

    labels: str | Path | None = None
    coco: str | Path | None = None
    runner: CandidateName = "onnx"
    engine: str | None = None
    precisions: tuple[str, ...] | None = None
    weights: str | Path | None = None
    out: str | Path | None = None

    def __post_init__(self) -> None:
        if self.runner not in get_args(CandidateName):
            raise UsageError(
                f"{self.runner} is not a side to compare with PyTorch",
                "use --runner auto, onnx or tensorrt",
            )
        if self.labels is not None and self.coco is not None:
            raise UsageError("--labels and --coco are two truths", "give one of them")


class Candidate(Protocol):
    """The runner that is compared with PyTorch."""

    name: str
    bundle: Bundle

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Run the graph once on a batch of its inputs and return its outputs, by name.

        An instance bundle always gives its five outputs, whatever its layout.
        """


class Source(Protocol):
    """A picture to compare."""

    @property
    def name(self) -> str:
        """Name in reports."""


class OnCanvas(Protocol):
    """A picture that was read."""

    @property
    def fitted(self) -> Fitted:
        """The picture on the network's canvas."""


SeenT = TypeVar("SeenT")


@dataclass(frozen=True)
class Batch(Generic[SeenT]):
    """A batch as both sides saw and answered it; rows past its pictures are fillers.

    Attributes:
        inputs: of the graph, by name.
        outputs: of the candidate, by name.
        pictures: both sides' answers for each picture.
    """

    inputs: dict[str, Array]
    outputs: Mapping[str, Array]
    pictures: tuple[SeenT, ...]


SourceT = TypeVar("SourceT", bound=Source)
ItemT = TypeVar("ItemT", bound=OnCanvas)


class Comparison(ABC, Generic[SourceT, ItemT]):
    """What one task compares; :func:`compare_pictures` calls it.

    Args:
        candidate: a runner of the bundle.
        reference_name: name of the reference's runner, for the record.
    """

    def __init__(self, candidate: Candidate, reference_name: str = "torch") -> None:
        self.candidate = candidate
        self.reference_name = reference_name

    @abstractmethod
    def read(self, source: SourceT) -> ItemT:
        """Read one picture. Raises DeployError where it cannot be read; it is then skipped."""

    @abstractmethod
    def add(
        self, items: Sequence[ItemT], inputs: dict[str, Array], outputs: dict[str, Array]
    ) -> None:
        """Compare one batch.

        Args:
            items: its pictures; rows past them are fillers.
            inputs: of the graph, by name.
            outputs: of the candidate, by name.
        """

    @abstractmethod
    def conclude(self, run: Run) -> Run:
        """Return the run with this task's stages, gates and scores."""


def compare_pictures(
    comparison: Comparison[SourceT, ItemT],
    pictures: Sequence[SourceT],
    versions: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Compare a bundle with its reference over pictures, in the bundle's batches.

    Args:
        comparison: of the bundle's task.
        pictures: in the order they are compared in.
        versions: of the libraries that run, for the record.
        progress: see :data:`Progress`.

    Returns:
        A run that passes when every stage and every gate passed; pictures that could not be read
        are in ``skipped``.

    Raises:
        DeployError: not one picture could be compared.
    """
    started = time.monotonic()
    candidate = comparison.candidate
    manifest = candidate.bundle.manifest
    tell = progress or (lambda done, total, name: None)
    skipped: list[Skipped] = []
    batch: list[ItemT] = []
    calls_s: list[float] = []

    def finish() -> None:
        inputs = batch_of([item.fitted for item in batch], manifest)
        called = time.perf_counter()
        outputs = candidate.infer(inputs)
        calls_s.append(time.perf_counter() - called)
        comparison.add(tuple(batch), inputs, outputs)
        batch.clear()

    for number, source in enumerate(pictures):
        tell(number, len(pictures), source.name)
        try:
            batch.append(comparison.read(source))
        except DeployError as error:
            skipped.append(Skipped(name=source.name, reason=error.message))
        if len(batch) == manifest.canvas.batch:
            finish()
    if batch:
        finish()
    tell(len(pictures), len(pictures), "")
    if len(skipped) == len(pictures):
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:3])
        raise DeployError(f"no picture could be compared. {reasons}", "each reason says what to do")
    run = comparison.conclude(
        Run(
            kind="compare",
            passed=False,
            candidate=candidate.name,
            reference=comparison.reference_name,
            created=now(),
            canvas_hw=manifest.canvas.padded_hw,
            pictures=len(pictures) - len(skipped),
            skipped=tuple(skipped),
            versions=dict(versions or {}),
        )
    )
    return msgspec.structs.replace(
        run,
        passed=all(run.gates) and all(run.stages),
        first_divergent=first_divergent(run.stages),
        seconds=round(time.monotonic() - started, 3),
        call_ms=round(1000 * median(calls_s[1:] or calls_s), 3),
        batch=manifest.canvas.batch,
        graph_bytes=_graph_bytes(candidate),
    )


def _graph_bytes(candidate: Candidate) -> int | None:
    """Return the size of the graphs that ran; None for an engine, or where they are not there."""
    bundle = candidate.bundle
    paths = [bundle.path / name for name in bundle.manifest.graphs_of("fp32")]
    if candidate.name != "onnx" or not all(path.is_file() for path in paths):
        return None
    return sum(path.stat().st_size for path in paths)


def read_fitted(path: Path, bundle: Bundle) -> tuple[UInt8, Fitted]:
    """Read a picture and fit it on the bundle's canvas.

    Returns:
        Its pixels, (H, W, 3) uint8 RGB, and the picture on the canvas.

    Raises:
        DeployError: it cannot be read.
    """
    rgb = read_picture(path).rgb
    return rgb, fit(from_rgb(rgb, bundle.manifest), bundle.manifest)


@dataclass(frozen=True)
class VerificationResult:
    """The stages of one call beside the reference's, in network order.

    A result is true in a condition when every stage and every gate passed.
    """

    stages: tuple[StageRow, ...]
    points: tuple[PointsRow, ...]
    gates: tuple[Gate, ...]

    def __bool__(self) -> bool:
        return all(self.stages) and all(self.gates)

    @property
    def passed(self) -> bool:
        """Whether every stage and every gate passed."""
        return bool(self)

    @property
    def first_divergent(self) -> str | None:
        """Name of the first stage that differs; None where all agree."""
        return first_divergent(self.stages)

    def raise_if_failed(self, candidate: str = "the exported graph") -> None:
        """Raise ParityError (exit code 3) where a stage differs.

        The message names the first stage that differs and says by how much.

        Args:
            candidate: the candidate's name in the message.
        """
        row = next((stage for stage in self.stages if not stage), None)
        if row is not None:
            raise ParityError(
                f"{candidate} differs from the PyTorch reference, first at `{row.name}`: "
                f"{row.problem}",
                "the stages before it agree, so the fault lies between them and it; "
                "tolerances and their reasons stand in pointrend_deploy/parity/gates.py",
            )
