"""Detections that differ because the proposals before them differ by near ties.

Among a thousand proposals rounding decides a suppression now and then: one run keeps a proposal,
the other its neighbour. A bundle does not say which proposals it chose. So where its detections
differ from the reference's, they are compared with everything that either choice allows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.instance.boxes import Detections, Outcome, detections_outcome
from pointrend_deploy.parity.instance.selection import Pool, locate, suppressed
from pointrend_deploy.parity.instance.verify import PictureReference

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]


def with_other_proposals(
    reference: PictureReference, found: Detections, count: int, shift: float
) -> Outcome:
    """Compare a picture's detections with the reference's for any choice of tied proposals.

    Args:
        reference: the picture's reference.
        found: the candidate's detections, of which the first ``count`` rows are used.
        count: number of detections.
        shift: pixels by which the two runs' boxes differ.

    Returns:
        An outcome without problems where some choice among nearly tied proposals leads to these
        detections. Its pairs are of no use: they refer to more detections than the reference has.
    """
    proposals = reference.proposal_pool()
    sure, possible = open_choices(proposals, shift)
    theirs, everything = reference.detections(proposals.boxes[possible])
    _, certain = reference.detections(proposals.boxes[sure])

    def pool() -> Pool:
        wide, narrow = everything(), certain()
        unsure = locate(wide.boxes, narrow.boxes, (wide.labels, narrow.labels)) < 0
        return dataclasses.replace(wide, doubtful=wide.doubtful | unsure)

    return detections_outcome(theirs, found, count, pool)


def open_choices(pool: Pool, shift: float) -> tuple[Bool, Bool]:
    """Mark the members of a pool that every run keeps, and those that some run may keep.

    Args:
        pool: the candidates the reference's suppression chose from.
        shift: pixels by which two runs' boxes differ.

    Returns:
        (M,) bool each; the first is part of the second. A near tie may cause others, so the two
        are computed together until neither changes.
    """
    kept = np.zeros(len(pool.boxes), np.bool_)
    kept[pool.kept] = True
    within, beyond = np.ones_like(kept), np.zeros_like(kept)
    if len(pool.kept) >= pool.limit:
        last = pool.scores[pool.kept].min()
        within = pool.scores >= last - pool.score_tolerance
        beyond = pool.scores <= last + pool.score_tolerance
    sure = kept & ~pool.doubtful & ~beyond
    while True:
        out, _ = suppressed(pool, np.flatnonzero(sure), shift)
        possible = kept | (~out & within)
        _, unsure = suppressed(pool, np.flatnonzero(possible), shift)
        fewer = sure & ~unsure
        if np.array_equal(fewer, sure):
            return sure, possible
        sure = fewer
