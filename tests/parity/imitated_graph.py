"""What an instance graph would give, from the reference in float64: other rounding, no more."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.model.network_input import network_input
from pointrend_deploy.parity.instance.masks import MaskForm, RoIs, probabilities
from pointrend_deploy.parity.instance.reference import TorchPicture
from pointrend_deploy.parity.instance.verify import InstanceVerification, verify_instances
from pointrend_deploy.recipe.instance import InstanceRecipe
from tests.model import tiny_instance

Array = NDArray[Any]


@dataclass
class Answers:
    """A graph's outputs, and the stages of its detections' masks."""

    outputs: dict[str, Array]
    rois: RoIs
    given: RoIs | None = None


class Case:
    """A model, a batch of pictures, and what a graph of it would answer."""

    def __init__(
        self,
        recipe: InstanceRecipe = tiny_instance.POINTREND,
        pictures: tuple[tuple[int, int], ...] = ((90, 120), (64, 128)),
        seed: int = 0,
    ) -> None:
        self.model = tiny_instance.model(recipe, seed)
        images = [tiny_instance.picture(h, w, seed + i) for i, (h, w) in enumerate(pictures)]
        canvas = (
            -(-max(h for h, _ in pictures) // 32) * 32,
            -(-max(w for _, w in pictures) // 32) * 32,
        )
        self.x = torch.zeros(len(images), 3, *canvas)
        for row, image in enumerate(images):
            h, w = image.shape[:2]
            self.x[row, :, :h, :w] = network_input(image, recipe.input)[0, :, :h, :w]
        self.extents = pictures
        spread_scores(self.model, self.x[:1], pictures[0])
        self.references = [
            TorchPicture(self.model, self.x[row : row + 1], hw) for row, hw in enumerate(pictures)
        ]

    def answers(self, form: MaskForm = "prob") -> Answers:
        """As a graph would, in another rounding."""
        model = copy.deepcopy(self.model).double()
        return answers(model, self.x.double(), self.extents, form)

    def verify(self, given: Answers, form: MaskForm = "prob") -> InstanceVerification:
        return verify_instances(self.references, given.outputs, given.rois, form, given.given)


@torch.no_grad()
def spread_scores(model: InstanceModel, x: torch.Tensor, hw: tuple[int, int]) -> None:
    """Change the predictors so that anchors and proposals differ in score, as they ought to."""
    features = model.backbone(x)
    rpn = model.proposal_generator
    objectness = [rpn.rpn_head(features[name])[0] for name in rpn.spec.in_features]
    rpn.rpn_head.objectness_logits.weight.mul_(1.5 / torch.cat(objectness, dim=1).std())
    proposals, _ = model.proposal_generator(features, hw)
    logits, _ = model.box_predictions(features, proposals)
    predictor = model.roi_heads.box_predictor.cls_score
    predictor.bias.sub_(logits.mean(dim=0))
    gain = 1.5 / logits.std(dim=0)
    predictor.weight.mul_(gain[:, None])
    predictor.bias.mul_(gain)


@torch.no_grad()
def answers(
    model: InstanceModel, x: torch.Tensor, extents: tuple[tuple[int, int], ...], form: MaskForm
) -> Answers:
    found = [model.canvas_stages(x[row : row + 1], hw) for row, hw in enumerate(extents)]
    most, rows = model.recipe.box_head.detections, model.recipe.rpn.post_nms_topk
    count, side = len(found), model.recipe.mask_side
    outputs: dict[str, Array] = {
        name: _float(torch.cat([stages[name] for stages in found])) for name in model.recipe.pyramid
    }
    outputs["proposals"] = np.zeros((count, rows, 4), np.float32)
    outputs["proposal_count"] = np.array([len(stages["proposals"]) for stages in found])
    outputs["num_detections"] = np.array([len(stages["boxes"]) for stages in found])
    outputs["boxes"] = np.zeros((count, most, 4), np.float32)
    outputs["scores"] = np.zeros((count, most), np.float32)
    outputs["classes"] = np.zeros((count, most), np.int64)
    masks = np.zeros((count, most, side, side), np.uint8 if form == "prob-u8" else np.float32)
    for row, stages in enumerate(found):
        for name in ("proposals", "boxes", "scores", "classes"):
            value = stages[name]
            outputs[name][row, : len(value)] = _float(value) if name != "classes" else value.numpy()
        masks[row, : len(stages["boxes"])] = stored(_float(stages["mask_logits"][:, 0]), form)
    outputs["masks"] = masks
    names = list(found[0])[list(found[0]).index("classes") + 1 :]
    counts = [len(stages["boxes"]) for stages in found]
    return Answers(
        outputs,
        RoIs(
            pictures=np.repeat(np.arange(count), counts),
            boxes=np.concatenate([outputs["boxes"][i, :c] for i, c in enumerate(counts)]),
            classes=np.concatenate([outputs["classes"][i, :c] for i, c in enumerate(counts)]),
            stages={name: _float(torch.cat([s[name] for s in found])) for name in names},
            masks=np.concatenate([masks[i, :c] for i, c in enumerate(counts)]),
        ),
    )


def stored(logits: Array, form: MaskForm) -> Array:
    if form == "logits":
        return logits
    found = probabilities(logits)
    return np.rint(found * 255).astype(np.uint8) if form == "prob-u8" else found


def _float(value: torch.Tensor) -> Array:
    return np.asarray(value.float().numpy() if value.is_floating_point() else value.numpy())
