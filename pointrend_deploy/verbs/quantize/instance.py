"""Instance models for `quantize`: an answer is the detections in a picture, with their masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.instance.masks import overlap
from pointrend_deploy.parity.instance.matching import detection_points, match
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.quantize.sensitivity import Measure
from pointrend_deploy.run.instance.instances import Instances, instances_at_picture_size

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DetectionAgreement:
    """Agreement of detections, over all pictures.

    Attributes:
        pictures: number of pictures compared.
        matched: number of pairs of detections that match.
        only_fp32: number of detections of the FP32 graph alone.
        only_made: number of detections of the new graph alone.
        mask_iou: mean IoU of the masks of matched detections; None if there are none.
    """

    pictures: int
    matched: int
    only_fp32: int
    only_made: int
    mask_iou: float | None

    def line(self) -> str:
        """Describe the agreement in a few words for the terminal."""
        total = self.matched + self.only_fp32
        found = f"{self.matched} of FP32's {total} detections matched, {self.only_made} more"
        return found if self.mask_iou is None else f"{found}, masks' IoU {self.mask_iou:.4f}"

    def note(self) -> str:
        """Return an empty text: generated pictures may show nothing that can be detected."""
        return ""


class InstanceTask:
    """Compares detections.

    Args:
        manifest: manifest of an instance bundle.
    """

    stages = ("p2", "p3", "p4", "p5", "p6")

    def __init__(self, manifest: Manifest) -> None:
        self._recipe, self._export = manifest.instances

    def predicted(self, prediction: Mapping[str, Any]) -> Instances:
        """Take the detections out of a prediction."""
        instances: Instances = prediction["instances"]
        return instances

    def answer(self, outputs: Mapping[str, Array], picture: Fitted) -> Instances:
        """Return the detections of the picture on the canvas."""
        hw = picture.fitted_hw
        return instances_at_picture_size(
            outputs, self._export.masks, hw, hw, self._recipe.num_classes
        )

    def explaining(self, fp32: ModelProto) -> tuple[str, ...]:
        """Name no values: no cause is named for detections that differ."""
        return ()

    def agreement(
        self,
        fp32: Sequence[Instances],
        made: Sequence[Instances],
        explained: Sequence[Sequence[Array]] = (),
    ) -> DetectionAgreement:
        """Match the detections in the same pictures."""
        matched = only_fp32 = only_made = 0
        ious: list[float] = []
        for a, b in zip(fp32, made, strict=True):
            pairs = match(a.boxes, a.classes, a.scores, b.boxes, b.classes, b.scores)
            matched += len(pairs.pairs)
            only_fp32 += len(pairs.only_a)
            only_made += len(pairs.only_b)
            for left, right in pairs.pairs:
                both, union = overlap(a.patches[left], b.patches[right])
                if union:
                    ious.append(both / union)
        mask_iou = float(np.mean(ious)) if ious else None
        return DetectionAgreement(len(made), matched, only_fp32, only_made, mask_iou)

    def measure(self, fp32: Sequence[Instances]) -> Measure:
        """Define points lost as the loss of mask IoU with FP32's detections.

        Raises:
            DeployError: FP32 detects nothing.
        """
        things = sum(len(each) for each in fp32)
        if not things:
            raise DeployError(
                f"FP32 finds nothing in any of {len(fp32)} pictures, so nothing can be lost",
                "give pictures like those the model was trained on (--images); for a model "
                "without trained weights sensitivity cannot be measured",
            )
        return Measure(
            points=f"points lost = 100 (1 - mean mask IoU with FP32's {things:,} detections)",
            caveat="a detection that is lost or added counts as IoU 0; this is not AP, which needs "
            "ground truth: see compare",
        )

    def points_lost(self, fp32: Sequence[Instances], made: Iterable[Instances]) -> float:
        """Compute the points lost, 0..100."""
        lost = detection_points(fp32, made)
        assert lost is not None  # measure() has refused answers without detections
        return lost
