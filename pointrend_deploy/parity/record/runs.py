"""What a comparison found, as it is written to ``parity.json``; the reports are made from this.

``parity.json`` is ``{"schema": 1, "runs": {"export": Run, "compare": Run}, "precisions":
PrecisionTable or null}``. A number that does not exist (the SNR of two equal tensors, the IoU of a
class that never occurs) is ``null``.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal

import msgspec

from pointrend_deploy.bundle.folder import PARITY, Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.record.detections import (
    AccuracyRow,
    DetectedPicture,
    DetectionsRow,
    Truth,
)
from pointrend_deploy.parity.record.intervals import ScoreInterval
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.rows import Limit, Row

SCHEMA = 1
Kind = Literal["tensor", "points", "labels", "proposals", "detections", "masks"]
Against = Literal["truth", "reference"]


class Gate(Limit, frozen=True):
    """A limit on a stage of the bundle beside the same stage of the PyTorch reference."""

    stage: str


class StageRow(Row, frozen=True):
    """A named stage of the candidate beside the reference's. True in a condition when it passed.

    Attributes:
        compared: number of values (tensor), points (points), pixels (labels), boxes (proposals
            and detections) or masks that were compared.
        max_abs, mean_abs, rms_difference: of candidate - reference.
        rms_reference: root mean square of the reference, which scales the limit.
        snr_db: 20 log10(rms_reference / rms_difference); None where nothing differs.
        limit: largest ``max_abs`` that passes (tensors only).
        agreement: share (0..1) of equal labels (labels only).
        problem: what is wrong, in a few words; empty where the stage passes.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    passed: bool
    compared: int = 0
    max_abs: float | None = None
    mean_abs: float | None = None
    rms_difference: float | None = None
    rms_reference: float | None = None
    snr_db: float | None = None
    limit: float | None = None
    agreement: float | None = None
    problem: str = ""

    def __bool__(self) -> bool:
        return self.passed


class PointsRow(Row, frozen=True):
    """The points that two sides chose at one subdivision step, over N images.

    A row is true in a condition when the choices agree.

    Attributes:
        k: number of points in an image.
        jaccard: the smallest of the N images' Jaccard indices.
        strays: number of points that only one side chose, over all images (the larger side's).
        exchangeable: how many of the strays have an uncertainty that equals the K-th up to
            rounding, so that either choice is right.
        stray_fraction: (strays - exchangeable) / (N * K).
        worst_gap: largest distance of a stray's uncertainty, by the reference, from the K-th;
            None where the uncertainty is not known.
    """

    step: int
    k: int
    grid_hw: tuple[int, int] | None
    jaccard: float
    strays: int
    exchangeable: int
    stray_fraction: float
    worst_gap: float | None
    gap_limit: float
    passed: bool
    problem: str = ""

    def __bool__(self) -> bool:
        return self.passed


class ClassRow(Row, frozen=True):
    """One class: IoU and boundary IoU by band; None where the truth does not have the class."""

    name: str
    iou: float | None
    boundary_iou: dict[str, float | None]


class MetricRow(Row, frozen=True):
    """Label maps of ``prediction`` against ``against``, accumulated over all pictures.

    ``miou`` and ``boundary_iou`` are means over the classes that ``against`` has.
    ``boundary_iou`` is keyed by band: "2 %" (of the picture's diagonal), "1 px", "2 px", "3 px".
    """

    prediction: str
    against: Against
    pictures: int
    agreement: float | None
    miou: float | None
    boundary_iou: dict[str, float | None]
    classes: tuple[ClassRow, ...] = ()


class PictureRow(Row, frozen=True):
    """One picture: agreement on its part of the network grid, and scores against its truth."""

    name: str
    size_hw: tuple[int, int]
    agreement: float
    worst_jaccard: float | None = None
    first_divergent: str | None = None
    miou: dict[str, float | None] = msgspec.field(default_factory=dict)
    boundary_iou_2px: dict[str, float | None] = msgspec.field(default_factory=dict)


class Skipped(Row, frozen=True):
    """A picture that could not be compared, and why."""

    name: str
    reason: str


class Run(Row, frozen=True):
    """One comparison of a bundle with its PyTorch reference.

    A run is true in a condition when every gate passed.

    Attributes:
        candidate, reference: the runners: ``onnx``, ``tensorrt``, ``torch``.
        created: when, in UTC (see :func:`now`).
        canvas_hw: height and width of the network's input, in pixels.
        first_divergent: name of the first stage that differs; None where all agree.
        pictures: number of pictures compared.
        seconds: how long it took.
        call_ms: median time in milliseconds of one call of the candidate with a whole batch, on the
            machine that compared; the first call does not count if there were others. It says
            what this machine took, beside PyTorch and with whatever else ran: no benchmark.
        batch: number of pictures in such a call; None where no time is recorded.
        graph_bytes: size of the graphs that ran; None for an engine.
        labels_from: how labels were brought to the picture's size; None for instance bundles.
        metrics, per_picture: scores of label maps (semantic bundles).
        detections, detected_pictures, accuracy, truth: matched detections and average precision
            (instance bundles).
        intervals: how far the bundle's scores against the truth, and their change beside the
            reference's, depend on the pictures. Empty without a truth, for few pictures, and in
            records of earlier versions.
        truth_notes: a line for all that is suspicious about the truth. Empty without a truth, and
            in records of earlier versions.
        skipped: pictures that could not be read.
        versions: of the libraries that ran, by name.
    """

    kind: Literal["export", "compare"]
    passed: bool
    candidate: str
    reference: str
    created: str
    canvas_hw: tuple[int, int]
    first_divergent: str | None = None
    pictures: int = 0
    seconds: float | None = None
    call_ms: float | None = None
    batch: int | None = None
    graph_bytes: int | None = None
    labels_from: str | None = None
    stages: tuple[StageRow, ...] = ()
    points: tuple[PointsRow, ...] = ()
    gates: tuple[Gate, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    per_picture: tuple[PictureRow, ...] = ()
    detections: DetectionsRow | None = None
    detected_pictures: tuple[DetectedPicture, ...] = ()
    accuracy: tuple[AccuracyRow, ...] = ()
    truth: Truth | None = None
    intervals: tuple[ScoreInterval, ...] = ()
    truth_notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = msgspec.field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def task(self) -> Literal["semantic", "instance"]:
        """The task of the bundle: only runs of instance bundles have ``detections``."""
        return "semantic" if self.detections is None else "instance"


class Parity(Row, frozen=True):
    """The whole of ``parity.json``.

    Attributes:
        runs: by kind.
        precisions: of the last comparison that compared precisions.
    """

    schema: int = SCHEMA
    runs: dict[str, Run] = msgspec.field(default_factory=dict)
    precisions: PrecisionTable | None = None


def now() -> str:
    """Return the present time in UTC: ``2026-01-31T23:59:59Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(parity: Parity) -> bytes:
    """Encode as indented JSON in UTF-8, keys in the order of the structs.

    NaN and infinity become null.
    """
    return msgspec.json.format(msgspec.json.encode(parity), indent=2) + b"\n"


def decode(raw: bytes, where: str = "parity.json") -> Parity:
    """Read and check ``parity.json``.

    Raises:
        DeployError: not JSON, another schema version, or a field of the wrong type, by its path.
    """
    try:
        parity = msgspec.json.decode(raw, type=Parity)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeployError(
            f"{where} cannot be read: {error}", "run `pointrend-deploy compare` on the bundle again"
        ) from error
    if parity.schema != SCHEMA:
        raise DeployError(
            f"{where} has schema {parity.schema}; this version reads schema {SCHEMA}",
            "use the version of pointrend-deploy that wrote it, or compare again",
        )
    return parity


def merged(parity: Parity, name: str, run: Run, precisions: PrecisionTable | None = None) -> Parity:
    """Return ``parity`` with one run, and a table of precisions, added or replaced.

    All else stays as it is; without a table the one in ``parity`` stays.
    """
    return msgspec.structs.replace(
        parity,
        runs={**parity.runs, name: run},
        precisions=parity.precisions if precisions is None else precisions,
    )


def of_bundle(bundle: Bundle) -> Parity:
    """Read the record of a bundle; an empty one where its manifest lists no ``parity.json``.

    Raises:
        DeployError: the file is listed and missing, changed or unreadable.
    """
    if PARITY not in bundle.manifest.files:
        return Parity()
    path = bundle.file(PARITY)
    return decode(path.read_bytes(), str(path))
