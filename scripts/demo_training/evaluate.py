"""mIoU and boundary IoU of a model's label maps, summed over a set of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pointrend_deploy.model.network_input import network_input
from pointrend_deploy.model.semantic.model import SemanticModel
from pointrend_deploy.parity.scores import labels as masks
from pointrend_deploy.parity.scores.boundary import LabelScores
from scripts.demo_training.compose import Scene

LabelMap = NDArray[np.uint8]
BAND_PX: Final = 2
_BAND: Final = f"{BAND_PX} px"


def predict(model: SemanticModel, image: NDArray[np.uint8]) -> dict[str, LabelMap]:
    """Label maps (H, W) of an H x W x 3 uint8 picture.

    Returns:
        ``final``, the model's answer, and ``coarse``, its coarse logits upsampled bilinearly.
    """
    height, width = image.shape[:2]
    with torch.no_grad():
        stages = model.canvas_stages(network_input(image, model.recipe.input))
        size = stages["logits"].shape[-2:]
        coarse = F.interpolate(stages["coarse"], size=size, mode="bilinear", align_corners=False)
    return {
        name: logits[0, :, :height, :width].argmax(0).to(torch.uint8).numpy()
        for name, logits in (("final", stages["logits"]), ("coarse", coarse))
    }


def scores(model: SemanticModel, scenes: Sequence[Scene]) -> dict[str, LabelScores]:
    """Score ``final`` and ``coarse`` of a model over scenes with exact labels."""
    counted = {
        name: LabelScores(model.recipe.num_classes, bands={_BAND: BAND_PX})
        for name in ("coarse", "final")
    }
    for scene in scenes:
        for name, labels in predict(model, scene.image).items():
            counted[name].add(labels, scene.label)
    return counted


def figures(score: LabelScores, names: Sequence[str] = ()) -> dict[str, Any]:
    """``miou`` and ``boundary_iou`` (band of 2 pixels), 0..1, background included.

    With class ``names`` also ``iou_by_class`` and ``boundary_iou_by_class``.
    """
    band = score.bands[_BAND]
    found: dict[str, Any] = {"miou": masks.mean_iou(score.matrix), "boundary_iou": band.mean()}
    if names:
        by_class = {"iou": masks.iou_per_class(score.matrix), "boundary_iou": band.per_class()}
        for name, values in by_class.items():
            found[f"{name}_by_class"] = dict(zip(names, values.tolist(), strict=True))
    return found
