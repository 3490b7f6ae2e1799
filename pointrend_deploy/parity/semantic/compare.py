"""A semantic bundle beside its PyTorch reference over many pictures, with and without a truth.

Agreement and stages are compared on the canvas, inside each picture; mIoU and boundary IoU at the
picture's own size, where both sides' labels are brought in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.comparison import (
    Batch,
    Candidate,
    Comparison,
    Progress,
    VerificationResult,
    compare_pictures,
    read_fitted,
)
from pointrend_deploy.parity.record.runs import PictureRow, Run
from pointrend_deploy.parity.scores.boundary import Scores
from pointrend_deploy.parity.semantic.verify import verify_stages
from pointrend_deploy.parity.semantic.worst import worst_gates, worst_points, worst_stages
from pointrend_deploy.parity.subdivision.replay import bilinear
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.run.semantic.labels import labels_at_picture_size
from pointrend_deploy.truth.label_maps import Pair, read_labels

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]


class Reference(Protocol):
    """The PyTorch runner of a semantic bundle."""

    name: str

    def canvas_stages(self, batch: dict[str, Array]) -> Mapping[str, Any]:
        """Return every stage in order, and ``labels``, as arrays or CPU tensors."""


@dataclass(frozen=True)
class Item:
    """A picture that was read.

    Attributes:
        pair: its files.
        rgb: (H, W, 3) uint8, its pixels.
        fitted: the picture on the canvas.
        truth: (H, W) int32, its true labels; None without a truth.
    """

    pair: Pair
    rgb: UInt8
    fitted: Fitted
    truth: npt.NDArray[np.int32] | None


@dataclass(frozen=True)
class ComparedLabels:
    """Both sides' answers for one picture.

    Attributes:
        item: the picture.
        outputs: the candidate's outputs by name, (1, ...) each.
        stages: the reference's stages and labels by name, (1, ...) each.
    """

    item: Item
    outputs: Mapping[str, Array]
    stages: Mapping[str, Array]


class LabelComparison(Comparison[Pair, Item]):
    """Compares label maps and stages; see :func:`compare` for the arguments."""

    def __init__(
        self,
        candidate: Candidate,
        reference: Reference,
        seen: Callable[[ComparedLabels], None] | None = None,
        watch: Callable[[Batch[ComparedLabels]], None] | None = None,
    ) -> None:
        super().__init__(candidate, reference.name)
        self._reference, self._seen, self._watch = reference, seen, watch
        self._recipe = candidate.bundle.manifest.semantic
        self._scores = Scores(self._recipe)
        self._rows: list[PictureRow] = []
        self._found: list[VerificationResult] = []
        self._ways: set[str] = set()

    def read(self, source: Pair) -> Item:
        """See :class:`Comparison`."""
        rgb, fitted = read_fitted(source.picture, self.candidate.bundle)
        truth = None
        if source.labels is not None:
            classes = self._recipe.classes
            truth = read_labels(
                source.labels,
                len(classes.names),
                classes.ignore_label,
                source.coding,
                fitted.picture_hw,
            )
        return Item(source, rgb, fitted, truth)

    def add(
        self, items: Sequence[Item], inputs: dict[str, Array], outputs: dict[str, Array]
    ) -> None:
        """See :class:`Comparison`."""
        stages = self._reference.canvas_stages(inputs)
        expected = {name: np.asarray(value) for name, value in stages.items()}
        pictures = tuple(
            ComparedLabels(item, _row(outputs, row), _row(expected, row))
            for row, item in enumerate(items)
        )
        if self._watch is not None:
            self._watch(Batch(inputs, outputs, pictures))
        for picture in pictures:
            self._compare(picture)
            if self._seen is not None:
                self._seen(picture)

    def _compare(self, picture: ComparedLabels) -> None:
        item, ours, theirs = picture.item, picture.outputs, picture.stages
        fitted = item.fitted
        result = verify_stages(theirs, ours, self._recipe, [fitted.fitted_hw])
        self._found.append(result)
        logits = "logits" in ours
        answers = {"bundle": labels_at(ours, fitted, logits)}
        answers["reference"] = labels_at(theirs, fitted, logits)
        if "coarse" in theirs and self._recipe.point_head is not None:
            whole = bilinear(theirs["coarse"][0], theirs["logits"].shape[2:])[None]
            coarse = {"logits": whole, "labels": whole.argmax(axis=1).astype(np.uint8)}
            answers["coarse"] = labels_at(coarse, fitted, logits)
        self._ways.add(answers["bundle"][1])
        own = self._scores.add({who: labels for who, (labels, _) in answers.items()}, item.truth)
        self._rows.append(
            PictureRow(
                name=item.pair.name,
                size_hw=fitted.picture_hw,
                agreement=result.stages[-1].agreement or 0.0,
                worst_jaccard=min((row.jaccard for row in result.points), default=None),
                first_divergent=result.first_divergent,
                miou={who: miou for who, (miou, _) in own.items()},
                boundary_iou_2px={who: boundary for who, (_, boundary) in own.items()},
            )
        )

    def conclude(self, run: Run) -> Run:
        """See :class:`Comparison`."""
        return msgspec.structs.replace(
            run,
            labels_from=", ".join(sorted(self._ways)),
            stages=worst_stages(self._found),
            points=worst_points(self._found),
            gates=worst_gates(self._found),
            metrics=self._scores.rows(),
            intervals=self._scores.intervals(),
            per_picture=tuple(sorted(self._rows, key=_goodness)),
        )


def _goodness(row: PictureRow) -> tuple[float, float]:
    """Return how good a picture is: by its agreement, then by its mIoU against the truth."""
    miou = row.miou.get("bundle")
    return row.agreement, 1.0 if miou is None else miou


def compare(
    candidate: Candidate,
    reference: Reference,
    pictures: Sequence[Pair],
    versions: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    seen: Callable[[ComparedLabels], None] | None = None,
    watch: Callable[[Batch[ComparedLabels]], None] | None = None,
) -> Run:
    """Compare a semantic bundle with its reference.

    Args:
        candidate: a runner of the bundle.
        reference: the PyTorch runner of the same bundle.
        pictures: from :func:`pointrend_deploy.truth.label_maps.pairs`.
        versions: of the libraries that run, for the record.
        progress: see :data:`pointrend_deploy.parity.comparison.Progress`.
        seen: called with both sides' answers for every picture.
        watch: called with every batch and both sides' answers.

    Returns:
        See :func:`pointrend_deploy.parity.comparison.compare_pictures`.

    Raises:
        DeployError: not one picture could be compared.
    """
    comparison = LabelComparison(candidate, reference, seen, watch)
    return compare_pictures(comparison, pictures, versions, progress)


def _row(arrays: Mapping[str, Array], row: int) -> dict[str, Array]:
    return {name: array[row : row + 1] for name, array in arrays.items()}


def labels_at(
    stages: Mapping[str, Array], fitted: Fitted, use_logits: bool
) -> tuple[npt.NDArray[np.uint8], str]:
    """Bring labels from the canvas to the picture's size, as a runner of the bundle does.

    Args:
        stages: ``labels`` (1, Hp, Wp), ``logits`` (1, C, Hp, Wp), or both.
        fitted: the picture on the canvas.
        use_logits: whether the bundle exports logits, which are then used.

    Returns:
        (H, W) uint8 labels, and how they were brought there.
    """
    labels = stages["labels"][0] if "labels" in stages else None
    logits = stages["logits"][0] if use_logits else None
    return labels_at_picture_size(labels, logits, fitted.fitted_hw, fitted.picture_hw)
