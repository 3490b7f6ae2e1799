"""The box head: class and box of every proposal, and the detections kept (Girshick 2015).

Source: detectron2 modeling/roi_heads/box_head.py and fast_rcnn.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.model.backbone.layers import Conv2d
from pointrend_deploy.model.instance.boxes import apply_deltas, clip, grouped_nms
from pointrend_deploy.recipe.instance import BoxHeadSpec


class BoxHead(nn.Module):
    """3x3 convolutions over the pooled features, then fully connected layers over all of a box.

    ``width`` is the number of values of a box that come out.
    """

    def __init__(self, spec: BoxHeadSpec, channels: int) -> None:
        super().__init__()
        self.num_conv, self.num_fc = spec.num_conv, spec.num_fc
        for number in range(1, spec.num_conv + 1):
            layer = Conv2d(channels, spec.channels, 3, norm=spec.norm, relu=True)
            self.add_module(f"conv{number}", layer)
            channels = spec.channels
        inputs = channels * spec.pooler_resolution**2
        for number in range(1, spec.num_fc + 1):
            self.add_module(f"fc{number}", nn.Linear(inputs, spec.fc_dim))
            inputs = spec.fc_dim
        self.width = inputs

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C, S, S) -> (R, width)."""
        x = pooled
        for number in range(1, self.num_conv + 1):
            x = self.get_submodule(f"conv{number}")(x)
        x = x.flatten(1)
        for number in range(1, self.num_fc + 1):
            x = F.relu(self.get_submodule(f"fc{number}")(x))
        return x


class BoxPredictor(nn.Module):
    """Class logits, background last, and box deltas, for every class or once."""

    def __init__(self, spec: BoxHeadSpec, width: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, num_classes + 1)
        self.bbox_pred = nn.Linear(width, 4 * (1 if spec.class_agnostic else num_classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, width) -> class logits (R, C + 1) and deltas (R, 4 * C), (R, 4) if agnostic."""
        return self.cls_score(x), self.bbox_pred(x)


def class_scores(logits: Tensor, spec: BoxHeadSpec) -> Tensor:
    """Class logits (R, C + 1) as scores (R, C + 1) in [0, 1], background last.

    With ``sigmoid`` the scores of a box do not sum to 1. detectron2 drops a box where the score of
    background is not finite in both forms, so background stays in the answer.
    """
    return logits.sigmoid() if spec.class_scores == "sigmoid" else logits.softmax(dim=1)


class Detections(NamedTuple):
    """Detections of one picture, by falling score.

    Attributes:
        boxes: (R, 4) in pixels of the network input, inside the picture; a box may be empty.
        scores: (R,) in (0, 1].
        classes: (R,) int64 in 0..C-1.
        proposals: (R,) int64, the proposal each one came from.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    proposals: Tensor


def detect(
    proposals: Tensor,
    class_logits: Tensor,
    deltas: Tensor,
    image_hw: tuple[int, int],
    spec: BoxHeadSpec,
) -> Detections:
    """Select the detections from the box head's predictions.

    Every pair of a proposal and a class whose probability is strictly above the threshold is a
    candidate; NMS within each class and the best ``spec.detections`` of what is left.

    Args:
        proposals: (P, 4).
        class_logits: (P, C + 1), background last.
        deltas: (P, 4 * C) or (P, 4).
        image_hw: size of the picture without padding, in pixels of the network input.
        spec: thresholds and divisors.
    """
    probabilities = class_scores(class_logits, spec)
    boxes = apply_deltas(deltas, proposals, spec.box_weights)
    finite = boxes.flatten(1).isfinite().all(dim=1) & probabilities.isfinite().all(dim=1)
    above = (probabilities[:, :-1] > spec.score_threshold) & finite[:, None]
    proposal, label = above.nonzero().unbind(1)
    which = torch.zeros_like(label) if spec.class_agnostic else label
    box = clip(boxes[proposal, which], image_hw)
    score = probabilities[proposal, label]
    kept = grouped_nms(box, score, label, spec.nms_threshold, spec.detections)
    return Detections(box[kept], score[kept], label[kept], proposal[kept])
