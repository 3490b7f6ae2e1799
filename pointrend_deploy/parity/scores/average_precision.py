"""COCO-style average precision of boxes, masks and boundaries, by faster-coco-eval.

Boundary AP (Cheng et al., CVPR 2021, section 4): a pair's overlap is the smaller of its mask IoU
and its boundary IoU, the band being 2 % of the picture's diagonal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.record.detections import AccuracyRow, ClassAP, Measure, Truth
from pointrend_deploy.parity.scores.picture_matches import (
    ClassMatches,
    PictureMatches,
    class_matches,
)
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.truth.annotations import (
    InstanceTruth,
    TruthObject,
    need_evaluator,
)

Array = npt.NDArray[Any]
MEASURES: Final[dict[Measure, str]] = {"box": "bbox", "mask": "segm", "boundary": "boundary"}
"""The evaluator's name of each measure."""


class Detected(Protocol):
    """Detections of one picture; R of them."""

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """(R, 4) x1, y1, x2, y2 in pixels of the picture."""

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """(R,) in 0..1."""

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """(R,) in 0..C-1."""

    def rle(self, index: int) -> Mapping[str, Any]:
        """Return the mask of one detection as COCO's run-length encoding."""


@dataclass(frozen=True)
class _Found:
    image_id: int
    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: dict[str, Any]


class Scorer:
    """Collects the detections of all sides, and scores them when all pictures are there.

    Args:
        truth: has the pictures and their objects.
        recipe: has the names of the classes.

    Raises:
        DeployError: the evaluator is not installed.
    """

    def __init__(self, truth: InstanceTruth, recipe: InstanceRecipe) -> None:
        self.evaluator = need_evaluator()
        self.truth = truth
        self.names = recipe.classes.names
        self._pictures: set[int] = set()
        self._found: dict[str, list[_Found]] = {}
        self._scored: dict[str, tuple[tuple[AccuracyRow, ...], PictureMatches]] = {}

    def add(self, image_id: int, sides: Mapping[str, Detected]) -> None:
        """Add one picture's detections.

        Args:
            image_id: of the picture, in the truth.
            sides: its detections by side, such as ``bundle`` and ``reference``.
        """
        self._pictures.add(image_id)
        self._scored.clear()
        for who, detected in sides.items():
            mine = self._found.setdefault(who, [])
            for index, label in enumerate(detected.classes.tolist()):
                x1, y1, x2, y2 = (float(v) for v in detected.boxes[index])
                mine.append(
                    _Found(
                        image_id,
                        label,
                        float(detected.scores[index]),
                        (x1, y1, x2 - x1, y2 - y1),
                        dict(detected.rle(index)),
                    )
                )

    def rows(self, sides: Collection[str]) -> tuple[AccuracyRow, ...]:
        """Return the average precision of sides by every measure, over the added pictures.

        Args:
            sides: names of sides; one without a picture has no rows.
        """
        held = sorted((who for who in sides if who in self._found), reverse=True)
        return tuple(self._score(who)[0][place] for place in range(len(MEASURES)) for who in held)

    def samples(self, side: str) -> PictureMatches | None:
        """Return what every picture adds to the scores of a side; None without a picture of it."""
        return self._score(side)[1] if side in self._found else None

    def summary(self) -> Truth:
        """Return what the scores are computed against."""
        objects = self._objects(self._pictures)
        crowds = sum(each.crowd for each in objects)
        return Truth(
            source=self.truth.source,
            pictures=len(self._pictures),
            objects=len(objects) - crowds,
            crowds=crowds,
            evaluator=self.evaluator,
            classes_left_out=self.truth.classes_left_out,
        )

    def _objects(self, pictures: Collection[int]) -> list[TruthObject]:
        return [each for each in self.truth.objects if each.image_id in pictures]

    def _score(self, who: str) -> tuple[tuple[AccuracyRow, ...], PictureMatches]:
        if who not in self._scored:
            known = [
                label
                for label, name in enumerate(self.names)
                if name not in self.truth.classes_left_out
            ]
            rows, matches, recalls = [], {}, np.zeros(0)
            for measure in MEASURES:
                evaluation = self._evaluate(self._found[who], measure, known)
                precision = np.asarray(evaluation.eval["precision"])[..., -1]
                rows.append(self._row(who, measure, known, precision))
                matches[f"{measure} AP"] = self._matches(self._found[who], evaluation, known)
                recalls = np.asarray(evaluation.params.recThrs)
            self._scored[who] = tuple(rows), PictureMatches(len(self._pictures), recalls, matches)
        return self._scored[who]

    def _row(
        self, who: str, measure: Measure, known: Sequence[int], precision: Array
    ) -> AccuracyRow:
        """Make a row of precisions, (10 IoUs, 101 recalls, classes, all and three sizes)."""
        every = precision[..., 0]
        return AccuracyRow(
            prediction=who,
            measure=measure,
            ap=_mean(every),
            ap50=_mean(every[0]),
            ap75=_mean(every[5]),
            small=_mean(precision[..., 1]),
            medium=_mean(precision[..., 2]),
            large=_mean(precision[..., 3]),
            classes=tuple(
                ClassAP(name=self.names[label], ap=_mean(every[:, :, place]))
                for place, label in enumerate(known)
            ),
        )

    def _evaluate(self, found: Sequence[_Found], measure: Measure, known: Sequence[int]) -> Any:
        """Return the evaluator after its work: overlaps, and precisions that are -1 for none."""
        from faster_coco_eval import COCO, COCOeval_faster

        truth = COCO(self._table(known))
        results = [_result(one, measure) for one in found if one.label in set(known)]
        evaluation = COCOeval_faster(
            truth,
            truth.loadRes(results),
            MEASURES[measure],
            print_function=_silent,
        )
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation

    def _matches(
        self, found: Sequence[_Found], evaluation: Any, known: Sequence[int]
    ) -> tuple[ClassMatches, ...]:
        """Return the matches of each class, from the overlaps that the evaluator computed."""
        pictures = sorted(self._pictures)
        number = {image_id: place for place, image_id in enumerate(pictures)}
        scores: dict[tuple[int, int], list[float]] = {}
        crowds: dict[tuple[int, int], list[bool]] = {}
        for one in found:
            scores.setdefault((one.label, one.image_id), []).append(one.score)
        for each in self._objects(self._pictures):
            crowds.setdefault((each.label, each.image_id), []).append(each.crowd)
        most = evaluation.params.maxDets[-1]
        made = []
        for label in known:
            rows = []
            objects = np.zeros(len(pictures), np.int64)
            for image_id in pictures:
                crowd = np.array(crowds.get((label, image_id), []), np.bool_)
                objects[number[image_id]] = (~crowd).sum()
                if (label, image_id) not in scores:
                    continue
                falling = -np.sort(-np.array(scores[label, image_id]))[:most]
                overlaps = np.asarray(evaluation.ious[image_id, label + 1], np.float64)
                overlaps = overlaps.reshape(len(falling), len(crowd))
                rows.append((number[image_id], falling, overlaps, crowd))
            made.append(class_matches(rows, objects, np.asarray(evaluation.params.iouThrs)))
        return tuple(made)

    def _table(self, known: Sequence[int]) -> dict[str, Any]:
        """Return the truth in the form of a COCO file.

        It is made anew at every call, because the evaluator changes it. Classes and objects are
        numbered from 1, because to the evaluator an id of 0 means "not matched".
        """
        return {
            "images": [
                {"id": each.image_id, "height": each.hw[0], "width": each.hw[1]}
                for each in self.truth.pictures
                if each.image_id in self._pictures
            ],
            "categories": [{"id": label + 1, "name": self.names[label]} for label in known],
            "annotations": [
                {
                    "id": number,
                    "image_id": each.image_id,
                    "category_id": each.label + 1,
                    "bbox": list(each.box),
                    "area": each.area,
                    "iscrowd": int(each.crowd),
                    "segmentation": each.segmentation,
                }
                for number, each in enumerate(self._objects(self._pictures), 1)
            ],
        }


def _result(found: _Found, measure: Measure) -> dict[str, Any]:
    """Return a result in the evaluator's form.

    The evaluator takes the area of the box where a box is given, otherwise the mask's.
    """
    own: dict[str, Any] = {"bbox": list(found.box)}
    if measure != "box":
        own = {"segmentation": found.mask}
    return {
        "image_id": found.image_id,
        "category_id": found.label + 1,
        "score": found.score,
        **own,
    }


def _mean(precision: Array) -> float | None:
    present = precision[precision > -1]
    return float(present.mean()) if present.size else None


def _silent(*_: object) -> None:
    """Print nothing; the evaluator would print its tables here."""
