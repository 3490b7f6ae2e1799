"""Semantic models for `quantize`: an answer is a label map, (H, W) uint8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.scores.labels import agreement, classes_shown, label_points
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.quantize.sensitivity import Measure

Array = npt.NDArray[Any]

FEW_LABELS: Final = 0.99
"""Below this share of equal labels, a graph without noise deserves a note."""


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement of label maps.

    Attributes:
        pictures: number of pictures compared.
        least: share of pixels with equal labels in the worst picture, in 0..1.
    """

    pictures: int
    least: float

    def line(self) -> str:
        """Describe the agreement in a few words for the terminal."""
        return f"labels agree with FP32 on {self.least:.3%} of the pixels"

    def note(self) -> str:
        """Return a warning if few labels agree, or an empty text."""
        if self.least >= FEW_LABELS:
            return ""
        return (
            "few labels agree although no stage is noisy: on generated pictures the two best "
            "classes of this model are often nearly tied; run compare on pictures like those it "
            "was trained on"
        )


class SemanticTask:
    """Compares label maps.

    Args:
        manifest: manifest of a semantic bundle.
    """

    stages = ("p2", "p3", "p4", "p5", "p6", "coarse")

    def __init__(self, manifest: Manifest) -> None:
        self._classes = len(manifest.recipe.classes.names)

    def predicted(self, prediction: Mapping[str, Any]) -> Array:
        """Take the labels (H, W) out of a prediction."""
        labels: Array = prediction["labels"]
        return labels

    def answer(self, outputs: Mapping[str, Array], picture: Fitted) -> Array:
        """Return the labels (H, W) of the picture on the canvas, without padding."""
        height, width = picture.fitted_hw
        if "labels" in outputs:
            return np.ascontiguousarray(outputs["labels"][:height, :width])
        best: Array = outputs["logits"][:, :height, :width].argmax(axis=0).astype(np.uint8)
        return best

    def agreement(self, fp32: Sequence[Array], made: Sequence[Array]) -> LabelAgreement:
        """Compare label maps of the same pictures."""
        least = min(agreement(ours, theirs) for ours, theirs in zip(made, fp32, strict=True))
        return LabelAgreement(len(made), least)

    def measure(self, fp32: Sequence[Array]) -> Measure:
        """Define points lost as the loss of mIoU with FP32's labels."""
        shown = classes_shown(fp32)
        return Measure(
            points="points lost = 100 (1 - mIoU with FP32's labels)",
            caveat="the mIoU with a ground truth that has every class FP32 shows falls by no more "
            "than that on these pictures, usually by much less",
            note=f"FP32 shows one of {self._classes} classes in these pictures"
            if shown == 1 < self._classes
            else "",
        )

    def points_lost(self, fp32: Sequence[Array], made: Iterable[Array]) -> float:
        """Compute the points lost, 0..100."""
        lost = label_points(fp32, made, self._classes)
        assert lost is not None  # label maps always have pixels
        return lost
