"""A bundle beside its PyTorch reference over many pictures, with and without ground truth.

Both sides get the very same canvas batch, so nothing but the graph and what runs it can differ.
Agreement and stages are compared on the canvas, inside each picture; mIoU and boundary IoU at the
picture's own size, both sides brought there in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.comparison import (
    VerificationResult,
    worst_gates,
    worst_points,
    worst_stages,
)
from pointrend_deploy.parity.record.runs import PictureRow, Run, Skipped, now
from pointrend_deploy.parity.scores.boundary import Scores
from pointrend_deploy.parity.semantic.verify import verify_stages
from pointrend_deploy.parity.subdivision.replay import bilinear
from pointrend_deploy.pictures.canvas import Fitted, batch_of, fit, from_rgb
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.run.semantic.labels import labels_at_picture_size
from pointrend_deploy.truth.label_maps import Pair, read_labels

Array = npt.NDArray[Any]


class Candidate(Protocol):
    """What compare needs of the runner under test."""

    name: str
    bundle: Bundle

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """One call of the graph: its outputs by name."""


class Reference(Protocol):
    """What compare needs of the PyTorch runner."""

    name: str

    def canvas_stages(self, batch: dict[str, Array]) -> Mapping[str, Any]:
        """Every stage in order, and ``labels``, as arrays or CPU tensors."""


@dataclass(frozen=True)
class Item:
    """A picture on the canvas, and its true labels where there are any."""

    pair: Pair
    fitted: Fitted
    truth: npt.NDArray[np.int32] | None


@dataclass(frozen=True)
class Batch:
    """A batch as both sides saw and answered it; rows past the items are fillers.

    Attributes:
        inputs: of the graph, by name.
        outputs: the candidate's, by name.
        expected: the reference's stages and labels, by name.
    """

    items: tuple[Item, ...]
    inputs: dict[str, Array]
    outputs: Mapping[str, Array]
    expected: Mapping[str, Array]


def compare(
    candidate: Candidate,
    reference: Reference,
    pictures: Sequence[Pair],
    versions: Mapping[str, str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    watch: Callable[[Batch], None] | None = None,
) -> Run:
    """Compare a bundle with its reference.

    Args:
        candidate: a runner of the bundle.
        reference: the torch runner of the same bundle.
        pictures: what ``dataset.pairs`` found.
        versions: of what ran, for the record.
        progress: called with pictures done, pictures in all, and the current picture's name.
        watch: called with every batch and both sides' answers.

    Returns:
        A run, truthy when every gate passed; pictures that could not be read are in ``skipped``.

    Raises:
        DeployError: not one picture could be compared.
    """
    started = time.monotonic()
    manifest = candidate.bundle.manifest
    tell = progress or (lambda done, total, name: None)
    scores = Scores(manifest.semantic)
    rows: list[PictureRow] = []
    found: list[VerificationResult] = []
    skipped: list[Skipped] = []
    ways: set[str] = set()
    batch: list[Item] = []

    def finish() -> None:
        _compare_batch(candidate, reference, batch, scores, rows, found, ways, watch)
        batch.clear()

    for number, pair in enumerate(pictures):
        tell(number, len(pictures), pair.name)
        try:
            batch.append(_read(pair, candidate.bundle))
        except DeployError as error:
            skipped.append(Skipped(name=pair.name, reason=error.message))
        if batch and (len(batch) == manifest.canvas.batch or number + 1 == len(pictures)):
            finish()
    if batch:
        finish()
    tell(len(pictures), len(pictures), "")
    if not rows:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:3])
        raise DeployError(f"no picture could be compared. {reasons}", "each reason says what to do")
    held = worst_gates(found)
    stages = worst_stages(found)
    return Run(
        kind="compare",
        passed=all(held) and all(stages),
        candidate=candidate.name,
        reference=reference.name,
        created=now(),
        canvas_hw=manifest.canvas.padded_hw,
        first_divergent=next((row.name for row in stages if not row), None),
        pictures=len(rows),
        seconds=round(time.monotonic() - started, 3),
        labels_from=", ".join(sorted(ways)),
        stages=stages,
        points=worst_points(found),
        gates=held,
        metrics=scores.rows(),
        per_picture=tuple(sorted(rows, key=lambda row: row.agreement)),
        skipped=tuple(skipped),
        versions=dict(versions or {}),
    )


def _read(pair: Pair, bundle: Bundle) -> Item:
    rgb = read_picture(pair.picture).rgb
    fitted = fit(from_rgb(rgb, bundle.manifest), bundle.manifest)
    truth = None
    if pair.labels is not None:
        classes = bundle.manifest.semantic.classes
        truth = read_labels(
            pair.labels, len(classes.names), classes.ignore_label, pair.coding, fitted.picture_hw
        )
    return Item(pair, fitted, truth)


def _compare_batch(
    candidate: Candidate,
    reference: Reference,
    batch: Sequence[Item],
    scores: Scores,
    rows: list[PictureRow],
    found: list[VerificationResult],
    ways: set[str],
    watch: Callable[[Batch], None] | None,
) -> None:
    inputs = batch_of([item.fitted for item in batch], candidate.bundle.manifest)
    outputs = candidate.infer(inputs)
    expected = {name: np.asarray(value) for name, value in reference.canvas_stages(inputs).items()}
    if watch is not None:
        watch(Batch(tuple(batch), inputs, outputs, expected))
    for index, item in enumerate(batch):
        ours = {name: value[index : index + 1] for name, value in outputs.items()}
        theirs = {name: value[index : index + 1] for name, value in expected.items()}
        hw = item.fitted.fitted_hw
        result = verify_stages(theirs, ours, candidate.bundle.manifest.semantic, [hw])
        found.append(result)
        logits = "logits" in ours
        answers = {"bundle": labels_at(ours, item.fitted, logits)}
        answers["reference"] = labels_at(theirs, item.fitted, logits)
        if "coarse" in theirs and candidate.bundle.manifest.semantic.point_head is not None:
            whole = bilinear(theirs["coarse"][0], theirs["logits"].shape[2:])[None]
            coarse = {"logits": whole, "labels": whole.argmax(axis=1).astype(np.uint8)}
            answers["coarse"] = labels_at(coarse, item.fitted, logits)
        ways.add(answers["bundle"][1])
        own = scores.add({who: labels for who, (labels, _) in answers.items()}, item.truth)
        rows.append(
            PictureRow(
                name=item.pair.name,
                size_hw=item.fitted.picture_hw,
                agreement=result.stages[-1].agreement or 0.0,
                worst_jaccard=min((row.jaccard for row in result.points), default=None),
                first_divergent=result.first_divergent,
                miou={who: miou for who, (miou, _) in own.items()},
                boundary_iou_2px={who: boundary for who, (_, boundary) in own.items()},
            )
        )


def labels_at(
    stages: Mapping[str, Array], fitted: Fitted, use_logits: bool
) -> tuple[npt.NDArray[np.uint8], str]:
    """Labels at the picture's size and how they came there, by the rule of what is exported.

    Args:
        stages: ``labels`` (1, Hp, Wp), ``logits`` (1, C, Hp, Wp), or both.
        fitted: the picture on the canvas.
        use_logits: whether the bundle exports logits.
    """
    labels = stages["labels"][0] if "labels" in stages else None
    logits = stages["logits"][0] if use_logits else None
    return labels_at_picture_size(labels, logits, fitted.fitted_hw, fitted.picture_hw)
