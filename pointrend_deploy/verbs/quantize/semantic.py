"""Semantic models for `quantize`: an answer is a label map, (H, W) uint8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.scores.labels import agreement, classes_shown, label_points
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.quantize.sensitivity import Measure
from pointrend_deploy.verbs.quantize.margins import NEARLY_TIED, margin_values, margins, nearly_tied

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

FEW_LABELS: Final = 0.99
"""Below this share of equal labels, a graph without noise deserves a note."""
MOSTLY: Final = 0.9
"""Share of the differing pixels that are nearly tied from which ties count as the cause."""


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement of label maps.

    Attributes:
        pictures: number of pictures compared.
        least: share of pixels with equal labels in the worst picture, in 0..1.
        tied: of the pixels with other labels, the share, 0..1, at which FP32's two best classes
            are nearly tied; None if no label differs or that was not measured.
    """

    pictures: int
    least: float
    tied: float | None = None

    def line(self) -> str:
        """Describe the agreement in a few words for the terminal."""
        return f"labels agree with FP32 on {self.least:.3%} of the pixels"

    def note(self) -> str:
        """Return a warning if few labels agree: what was measured, and what to run next."""
        if self.least >= FEW_LABELS:
            return ""
        where = ", on the worst picture" if self.pictures > 1 else ""
        found = f"{1 - self.least:.1%} of the labels differ from FP32's{where}"
        if self.tied is not None:
            found += (
                f"; at {self.tied:.1%} of these pixels FP32's own two best classes are nearly tied "
                f"(logits less than {NEARLY_TIED:.0%} of the usual difference apart)"
            )
        if self.tied is None or self.tied < MOSTLY:
            found += (
                ". No stage is noisy. For INT8, quantize --sensitivity measures which blocks the "
                "difference comes from"
            )
        return (
            f"{found}. Generated pictures are unlike those of a training: compare --precision all "
            "counts on your own and lists the worst"
        )


class SemanticTask:
    """Compares label maps.

    Args:
        manifest: manifest of a semantic bundle.
    """

    stages = ("p2", "p3", "p4", "p5", "p6", "coarse")

    def __init__(self, manifest: Manifest) -> None:
        self._classes = len(manifest.recipe.classes.names)
        self._padded_hw = manifest.canvas.padded_hw

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

    def explaining(self, fp32: ModelProto) -> tuple[str, ...]:
        """Name the values from which the margins between the two best classes follow."""
        return margin_values(fp32)

    def agreement(
        self,
        fp32: Sequence[Array],
        made: Sequence[Array],
        explained: Sequence[Sequence[Array]] = (),
    ) -> LabelAgreement:
        """Compare label maps of the same pictures."""
        pairs = list(zip(made, fp32, strict=True))
        least = min(agreement(ours, theirs) for ours, theirs in pairs)
        if not explained or not explained[0]:
            return LabelAgreement(len(made), least)
        maps = [row for each in explained for row in margins(*each)]
        differ = [self._on_canvas(ours != theirs) for ours, theirs in pairs]
        known = maps[: len(differ)]  # the last batch may have been filled up
        if [each.size for each in known] != [each.size for each in differ]:
            return LabelAgreement(len(made), least)
        tied = nearly_tied(np.stack(known), np.stack(differ).reshape(len(differ), -1))
        return LabelAgreement(len(made), least, tied)

    def _on_canvas(self, pixels: Array) -> Array:
        """Pad the pixels (H, W) of a picture of the canvas' size to the padded canvas."""
        height, width = self._padded_hw
        rows, columns = height - pixels.shape[0], width - pixels.shape[1]
        return np.pad(pixels, ((0, rows), (0, columns)))

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
