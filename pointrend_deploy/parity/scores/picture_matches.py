"""Which detections of each picture are right, so that average precision can be drawn again.

Detections are assigned to objects as COCO's evaluator does it, from the overlaps that it computed:
in falling order of score each takes the free object of its class that it overlaps most, if that is
enough; crowds take any number, and what they take counts neither for nor against. From these the
average precision of any choice of pictures, each any number of times, follows without the
evaluator (Lin et al., ECCV 2014; ``evaluateImg`` and ``accumulate`` of ``pycocotools.cocoeval``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.scores.intervals import Float64, mean_of_rows

Array = npt.NDArray[Any]
AT_ONCE: Final = 1 << 21
"""Number of values in one array while draws are summed up, so that memory stays small."""


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class in all pictures, by falling score; D of them, T thresholds.

    Attributes:
        picture: (D,) int64: number of the picture, 0..N-1.
        right: (T, D) bool: matched with an object.
        ignored: (T, D) bool: matched with a crowd.
        objects: (N,) int64: number of objects that are no crowds in each picture.
    """

    picture: Array
    right: Array
    ignored: Array
    objects: Array

    def average_precision(self, counts: Array, recalls: Array) -> Float64:
        """Return the average precision of each draw, (B,), over all thresholds.

        Args:
            counts: (B, N): how often each picture is in a draw.
            recalls: (R,) rising: the recalls at which precision is read.

        Returns:
            0..1; NaN for a draw without an object of the class.
        """
        objects = counts @ self.objects
        found = np.full(len(counts), np.nan)
        step = max(1, AT_ONCE // max(1, len(self.picture)))
        for start in range(0, len(counts), step):
            part = slice(start, start + step)
            found[part] = self._some(counts[part], objects[part], recalls)
        return found

    def _some(self, counts: Array, objects: Array, recalls: Array) -> Float64:
        weights = counts[:, self.picture]
        every = np.cumsum(weights, axis=1)
        total = np.zeros(len(counts))
        for right, ignored in zip(self.right, self.ignored, strict=True):
            at = np.flatnonzero(right)
            if not len(at):
                continue
            hits = np.cumsum(weights[:, at], axis=1)
            counted = every[:, at]
            if ignored.any():
                counted = counted - np.cumsum(weights * ignored, axis=1)[:, at]
            precision = hits / np.maximum(counted, 1)
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recall = hits / np.maximum(objects, 1)[:, None]
            reached = np.searchsorted(recalls, recall, side="right")
            new = np.diff(reached, axis=1, prepend=0)
            total += (best * new).sum(axis=1) / len(recalls)
        return np.where(objects > 0, total / len(self.right), np.nan)


def assign(overlaps: Array, crowd: Array, thresholds: Array) -> tuple[Array, Array]:
    """Assign the detections of one class in one picture to its objects.

    Args:
        overlaps: (D, G) of each detection, by falling score, with each object, in 0..1.
        crowd: (G,) bool.
        thresholds: (T,) least overlaps.

    Returns:
        (T, D) bool each: matched with an object; matched with a crowd.
    """
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    levels = np.arange(len(thresholds))
    right = np.zeros((len(thresholds), len(overlaps)), np.bool_)
    ignored = np.zeros_like(right)
    if not len(crowd):
        return right, ignored
    free = np.ones((len(thresholds), len(crowd)), np.bool_)
    last = len(crowd) - 1
    for row, each in enumerate(overlaps):
        enough = free & (each >= least)
        objects, crowds = enough & ~crowd, enough & crowd
        right[:, row] = objects.any(axis=1)
        ignored[:, row] = crowds.any(axis=1) & ~right[:, row]
        # of equal overlaps the evaluator takes the last
        chosen = last - np.where(objects, each, -1.0)[:, ::-1].argmax(axis=1)
        taken = right[:, row]
        free[levels[taken], chosen[taken]] = False
    return right, ignored


def class_matches(
    found: Sequence[tuple[int, Array, Array, Array]], objects: Array, thresholds: Array
) -> ClassMatches:
    """Put the detections of one class in all pictures together.

    Args:
        found: for each picture with detections, in the evaluator's order: its number, the scores,
            (D,) falling, their overlaps with its objects, (D, G), and which objects are crowds,
            (G,) bool.
        objects: (N,) number of objects that are no crowds in each picture.
        thresholds: (T,) least overlaps.
    """
    scores = np.concatenate([np.zeros(0), *(each for _, each, _, _ in found)])
    order = np.argsort(-scores, kind="stable")
    pictures = [np.full(len(each), number, np.int64) for number, each, _, _ in found]
    matched = [assign(overlaps, crowd, thresholds) for _, _, overlaps, crowd in found]
    none = np.zeros((len(thresholds), 0), np.bool_)
    return ClassMatches(
        np.concatenate([np.zeros(0, np.int64), *pictures])[order],
        np.concatenate([none, *(right for right, _ in matched)], axis=1)[:, order],
        np.concatenate([none, *(ignored for _, ignored in matched)], axis=1)[:, order],
        objects,
    )


@dataclass(frozen=True)
class PictureMatches:
    """What every picture of one side adds to its average precisions.

    Attributes:
        pictures: N.
        recalls: (R,) at which precision is read.
        classes: the matches of each class, by the score's name.
    """

    pictures: int
    recalls: Array
    classes: Mapping[str, Sequence[ClassMatches]]

    def scores(self, counts: Array) -> Mapping[str, Float64]:
        """See :class:`pointrend_deploy.parity.scores.intervals.Samples`."""
        return {
            name: mean_of_rows(
                np.stack([one.average_precision(counts, self.recalls) for one in each], axis=1)
            )
            for name, each in self.classes.items()
        }
