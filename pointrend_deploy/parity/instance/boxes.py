"""Proposals and detections of a graph compared with the reference's as sets, picture by picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity import gates
from pointrend_deploy.parity.instance.matching import match
from pointrend_deploy.parity.instance.selection import (
    Int64,
    Labels,
    Pool,
    locate,
    suppressed,
    unlawful,
)
from pointrend_deploy.parity.record.runs import Gate, StageRow

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Detections:
    """Detections of one picture by falling score: (R, 4) in pixels of the canvas, (R,), (R,)."""

    boxes: Array
    scores: Array
    classes: Array

    @property
    def labels(self) -> Labels:
        """Classes and scores."""
        return Labels(self.classes, self.scores)


@dataclass
class Outcome:
    """The comparison of one picture's boxes with the reference's.

    Attributes:
        reference: number of boxes the reference has.
        pairs: (M, 2) int64: row of the candidate, row of the reference.
        strays: number of boxes only one side has, the larger of the two sides' numbers.
        apart: largest difference of a coordinate, in pixels.
        scores_apart: largest difference of a score.
        problems: what is wrong, a sentence each; none where every stray is a near tie.
    """

    reference: int
    pairs: Int64 = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    strays: int = 0
    apart: float = 0.0
    scores_apart: float = 0.0
    problems: list[str] = field(default_factory=list)


def proposals_outcome(
    reference: Array, candidate: Array, count: int, pool: Callable[[], Pool]
) -> Outcome:
    """Compare the proposals of one picture.

    Args:
        reference: (P, 4).
        candidate: (most, 4), of which the first ``count`` rows are used.
        count: number of proposals.
        pool: gives the candidates the reference chose from; called only where the sets differ.
    """
    outcome = Outcome(len(reference))
    if problem := _malformed(candidate, count):
        outcome.problems.append(problem)
        return outcome
    found = candidate[:count]
    at = locate(found, reference)
    _set_pairs(outcome, found, reference, at)
    if outcome.strays:
        _judge(outcome, found, at, pool(), None, "proposal")
    share = outcome.strays / max(1, len(reference))
    if share > max(gates.PROPOSALS.limit, gates.FEW / max(1, len(reference))):
        outcome.problems.append(f"{100 * share:.2f} % of the proposals are not the reference's")
    return outcome


def detections_outcome(
    reference: Detections, candidate: Detections, count: int, pool: Callable[[], Pool]
) -> Outcome:
    """Compare the detections of one picture.

    Args:
        reference: the reference's detections.
        candidate: (D, 4), (D,), (D,), of which ``count`` rows are used and the others are zero.
        count: number of detections.
        pool: as in :func:`proposals_outcome`.
    """
    outcome = Outcome(len(reference.boxes))
    if problem := _malformed(candidate.boxes, count) or _ill_ordered(candidate, count):
        outcome.problems.append(problem)
        return outcome
    found = Detections(candidate.boxes[:count], candidate.scores[:count], candidate.classes[:count])
    at = locate(found.boxes, reference.boxes, (found.labels, reference.labels))
    _set_pairs(outcome, found.boxes, reference.boxes, at)
    rows, partners = outcome.pairs.T
    _widen(outcome, found, reference, rows, partners)
    if outcome.strays:
        strangers = _judge(outcome, found.boxes, at, pool(), found.labels, "detection")
        _describe(outcome, found, reference, at, strangers)
    return outcome


def box_rows(
    name: Literal["proposals", "detections"], outcomes: Sequence[Outcome], most: int
) -> tuple[StageRow, list[Gate]]:
    """Make one stage row over all pictures, and its gates.

    Args:
        name: of the stage.
        outcomes: one for each picture.
        most: number of rows a picture has room for.
    """
    total = sum(outcome.reference for outcome in outcomes)
    strays = sum(outcome.strays for outcome in outcomes)
    apart = max((outcome.apart for outcome in outcomes), default=0.0)
    problems = [
        (f"picture {index}: " if len(outcomes) > 1 else "") + problem
        for index, outcome in enumerate(outcomes)
        for problem in outcome.problems
    ]
    row = StageRow(
        name=name,
        kind=name,
        shape=(len(outcomes), most, 4),
        passed=not problems,
        compared=total,
        max_abs=apart,
        limit=gates.BOXES.limit,
        agreement=1.0 - strays / total if total else 1.0 - float(strays > 0),
        problem="; ".join(problems[:3]),
    )
    held = [_gate("largest difference of a box, pixels", name, apart, gates.BOXES)]
    if name == "proposals":
        limit = max(gates.PROPOSALS.limit, gates.FEW * len(outcomes) / max(1, total))
        share = strays / max(1, total)
        reason = gates.PROPOSALS.reason
        held.append(gates.gate("stray proposals", name, share, "<=", limit, reason))
    else:
        scores = max((outcome.scores_apart for outcome in outcomes), default=0.0)
        held.append(_gate("largest difference of a score", name, scores, gates.SCORES))
    wrong = sum(len(outcome.problems) for outcome in outcomes)
    reason = "a box only one side has must be a near tie of scores or overlaps"
    held.append(gates.gate("faults no near tie explains", name, wrong, "<=", 0, reason))
    return row, held


def _gate(name: str, stage: str, value: float, tolerance: gates.Tolerance) -> Gate:
    return gates.gate(name, stage, value, "<=", tolerance.limit, tolerance.reason)


def _malformed(boxes: Array, count: int) -> str:
    if not 0 <= count <= len(boxes):
        return f"a count of {count} where there is room for {len(boxes)}"
    bad = count - int(np.isfinite(boxes[:count]).all(axis=1).sum())
    return f"{bad} of {count} boxes are NaN or infinite" if bad else ""


def _ill_ordered(candidate: Detections, count: int) -> str:
    scores = candidate.scores[:count]
    if not np.isfinite(scores).all():
        return "a score is NaN or infinite"
    if (scores[1:] > scores[:-1]).any():
        return "the scores do not fall"
    rest = (candidate.boxes[count:], candidate.scores[count:], candidate.classes[count:])
    if any(bool((values != 0).any()) for values in rest):  # NaN is not 0
        return "rows past num_detections are not zero"
    return ""


def _set_pairs(outcome: Outcome, found: Array, reference: Array, at: Int64) -> None:
    rows = np.flatnonzero(at >= 0)
    outcome.pairs = np.stack((rows, at[rows]), axis=1).astype(np.int64)
    outcome.strays = max(len(found), len(reference)) - len(rows)
    if len(rows):
        outcome.apart = float(np.abs(found[rows] - reference[at[rows]]).max())


def _widen(
    outcome: Outcome, found: Detections, reference: Detections, rows: Int64, partners: Int64
) -> None:
    """Let the largest differences cover these further pairs."""
    if not len(rows):
        return
    boxes = np.abs(found.boxes[rows] - reference.boxes[partners]).max()
    scores = np.abs(found.scores[rows] - reference.scores[partners]).max()
    outcome.apart = max(outcome.apart, float(boxes))
    outcome.scores_apart = max(outcome.scores_apart, float(scores))


def _judge(
    outcome: Outcome,
    found: Array,
    at: Int64,
    pool: Pool,
    labels: Labels | None,
    what: str,
) -> list[int]:
    """Check the whole set against the rule of suppression; return rows that are not in the pool."""
    held = np.where(at >= 0, pool.kept[at.clip(0)] if len(pool.kept) else -1, -1)
    surely, _ = suppressed(pool, held[held >= 0], outcome.apart)
    for barred in (surely, np.zeros_like(surely)):  # of two equal boxes, the one that may be kept
        left = np.flatnonzero(held < 0)
        free = ~barred
        free[held[held >= 0]] = False
        own = None if labels is None else (labels.rows(left), pool.labels)
        held[left] = locate(found[left], pool.boxes, own, free)
    strangers = [int(row) for row in np.flatnonzero(held < 0)]
    if strangers and what == "proposal":
        outcome.problems.append(
            f"{len(strangers)} of {len(found)} are boxes the reference did not choose from"
        )
    wrongly_in, wrongly_out = unlawful(pool, held[held >= 0], outcome.apart)
    if len(wrongly_in):
        outcome.problems.append(f"{len(wrongly_in)} {what}s should have been suppressed")
    if len(wrongly_out) and not strangers:
        scores = ", ".join(f"{score:.3g}" for score in pool.scores[wrongly_out[:3]])
        outcome.problems.append(
            f"{len(wrongly_out)} {what}s are missing that nothing suppresses (scores {scores})"
        )
    return strangers


def _describe(
    outcome: Outcome,
    found: Detections,
    reference: Detections,
    at: Int64,
    strangers: list[int],
) -> None:
    """Describe detections that are in no pool by the nearest one of the reference's."""
    if not strangers:
        return
    free = np.setdiff1d(np.arange(len(reference.boxes)), at)
    rows = np.array(strangers)
    theirs = (reference.boxes[free], reference.classes[free], reference.scores[free])
    ours = (found.boxes[rows], found.classes[rows], found.scores[rows])
    same = match(*ours, *theirs)
    _widen(outcome, found, reference, rows[same.pairs[:, 0]], free[same.pairs[:, 1]])
    anyhow = match(
        ours[0], np.zeros_like(ours[1]), ours[2], theirs[0], np.zeros_like(theirs[1]), theirs[2]
    )
    partner = {int(i): int(j) for i, j in [*anyhow.pairs, *same.pairs]}
    for place, row in enumerate(strangers):
        label = f"detection {row} of class {found.classes[row]}"
        if place not in partner:
            outcome.problems.append(f"{label} is none of the reference's")
            continue
        other = free[partner[place]]
        if reference.classes[other] != found.classes[row]:
            outcome.problems.append(
                f"{label} is of class {reference.classes[other]} in the reference"
            )
            continue
        box = float(np.abs(found.boxes[row] - reference.boxes[other]).max())
        score = float(abs(found.scores[row] - reference.scores[other]))
        outcome.problems.append(
            f"{label} differs from the reference's by {box:.3g} px and {score:.3g} in score"
        )
