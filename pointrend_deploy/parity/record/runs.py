"""What a comparison found, as written to ``parity.json``; reports are rendered from it.

``parity.json`` is ``{"schema": 1, "runs": {"export": Run, "compare": Run}, "precisions":
PrecisionTable or null}``. A number that does not exist (the SNR of two equal tensors, the IoU of a
class that never occurs) is ``null``.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import PARITY, Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.record.detections import (
    AccuracyRow,
    DetectedPicture,
    DetectionsRow,
    Truth,
)
from pointrend_deploy.parity.record.precisions import PrecisionTable

SCHEMA = 1
Kind = Literal["tensor", "points", "labels", "proposals", "detections", "masks"]
Against = Literal["truth", "reference"]


class _Row(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=False):
    """A frozen row of ``parity.json``."""


class Gate(_Row, frozen=True):
    """One written limit and the value held against it. Truthy when it passes."""

    name: str
    stage: str
    value: float | None
    limit: float
    op: Literal["<=", ">="]
    reason: str
    passed: bool

    def __bool__(self) -> bool:
        return self.passed


class StageRow(_Row, frozen=True):
    """A named stage of the candidate against the reference. Truthy when it passes.

    Attributes:
        compared: values (tensor), points (points), pixels (labels), boxes (proposals and
            detections) or masks that were held side by side.
        max_abs, mean_abs, rms_difference: of candidate - reference.
        rms_reference: root mean square of the reference, which scales the limit.
        snr_db: 20 log10(rms_reference / rms_difference); None where nothing differs.
        limit: largest ``max_abs`` that passes (tensors only).
        problem: what is wrong in a few words; empty where the stage passes.
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


class PointsRow(_Row, frozen=True):
    """The points two sides chose at one subdivision step, over N images. Truthy when they agree.

    Attributes:
        k: points an image; ``jaccard`` is the smallest of the N images' Jaccard indices.
        strays: points of one side that the other lacks, over all images (larger of both ways).
        exchangeable: of these, points whose uncertainty equals the K-th up to rounding, so that
            either choice is right.
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


class ClassRow(_Row, frozen=True):
    """One class: IoU and boundary IoU by band; None where the class occurs on neither side."""

    name: str
    iou: float | None
    boundary_iou: dict[str, float | None]


class MetricRow(_Row, frozen=True):
    """Label maps of ``prediction`` against ``against``, accumulated over all pictures.

    ``boundary_iou`` is keyed by band: "2 %" (of the picture's diagonal), "1 px", "2 px", "3 px".
    """

    prediction: str
    against: Against
    pictures: int
    agreement: float | None
    miou: float | None
    boundary_iou: dict[str, float | None]
    classes: tuple[ClassRow, ...] = ()


class PictureRow(_Row, frozen=True):
    """One picture: agreement on its part of the network grid, and scores against its truth."""

    name: str
    size_hw: tuple[int, int]
    agreement: float
    worst_jaccard: float | None = None
    first_divergent: str | None = None
    miou: dict[str, float | None] = {}
    boundary_iou_2px: dict[str, float | None] = {}


class Skipped(_Row, frozen=True):
    """A picture that could not be compared, and why."""

    name: str
    reason: str


class Run(_Row, frozen=True):
    """One comparison of a bundle with its PyTorch reference. Truthy when every gate passed."""

    kind: Literal["export", "compare"]
    passed: bool
    candidate: str
    reference: str
    created: str
    canvas_hw: tuple[int, int]
    first_divergent: str | None = None
    pictures: int = 0
    seconds: float | None = None
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
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = {}

    def __bool__(self) -> bool:
        return self.passed


class Parity(_Row, frozen=True):
    """The whole of ``parity.json``.

    Attributes:
        runs: by kind.
        precisions: of the last comparison that was asked for precisions.
    """

    schema: int = SCHEMA
    runs: dict[str, Run] = {}
    precisions: PrecisionTable | None = None


def now() -> str:
    """The time of a run, in UTC: ``2026-01-31T23:59:59Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(parity: Parity) -> bytes:
    """Indented JSON, UTF-8, keys in the order of the structs. NaN and infinity become null."""
    return msgspec.json.format(msgspec.json.encode(parity), indent=2) + b"\n"


def decode(raw: bytes, where: str = "parity.json") -> Parity:
    """Read and check ``parity.json``.

    Raises:
        DeployError: not JSON, another schema version, or a field of the wrong type, by its path.
    """
    try:
        parity = msgspec.json.decode(raw, type=Parity)
    except (msgspec.DecodeError, RecursionError) as error:
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
    """``parity`` with one run, and a table of precisions, added or replaced; the others stay."""
    return msgspec.structs.replace(
        parity,
        runs={**parity.runs, name: run},
        precisions=parity.precisions if precisions is None else precisions,
    )


def of_bundle(bundle: Bundle) -> Parity:
    """What a bundle's parity.json records; nothing only where the manifest lists no such file.

    Raises:
        DeployError: it is listed and missing, changed or unreadable.
    """
    if PARITY not in bundle.manifest.files:
        return Parity()
    path = bundle.file(PARITY)
    return decode(path.read_bytes(), str(path))


def load(path: str | Path) -> Parity:
    """Read ``parity.json``; an absent file is an empty record.

    Raises:
        DeployError: the file is there but cannot be read (see ``decode``).
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Parity()
    except OSError as error:
        raise DeployError(f"cannot read {path}: {error.strerror or error}") from error
    return decode(raw, str(path))


def add_run(path: str | Path, name: str, run: Run) -> Parity:
    """Merge one run into the file, written whole or not at all, and return the new record."""
    parity = merged(load(path), name, run)
    atomic.write_bytes(path, encode(parity))
    return parity
