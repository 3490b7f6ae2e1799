"""Detections with fixed shapes: the traceable form of the box head and of ``detect``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointrend_deploy.graph.instance_ops import pool, suppress
from pointrend_deploy.graph.ops import integer_quotient
from pointrend_deploy.graph.proposals import (
    INFINITY,
    Proposals,
    clip_to,
    finite,
    rows_of,
    take_rows,
)
from pointrend_deploy.model.boxes import apply_deltas
from pointrend_deploy.model.instance import InstanceModel


class BoxDetections(nn.Module):
    """Detections among the proposals: the box head, then NMS within each class.

    Equal scores of different classes come in the order of the classes, where the reference has
    them in the order of the proposals.

    Args:
        model: the reference.
        detections: most detections, D.
    """

    def __init__(self, model: InstanceModel, detections: int) -> None:
        super().__init__()
        self.spec = model.recipe.box_head
        self.classes = model.recipe.num_classes
        self.detections = detections
        self.box_head = model.roi_heads.box_head
        self.box_predictor = model.roi_heads.box_predictor

    def forward(
        self, features: dict[str, Tensor], proposals: Tensor, count: Tensor, limit: Tensor
    ) -> dict[str, Tensor]:
        """Detections of proposals.

        Args:
            features: levels of the pyramid by name, (N, C, h, w).
            proposals: (N, P, 4); those past ``count`` become no detection.
            count: (N,) int64.
            limit: (N, 1, 4), width and height of each picture, twice.

        Returns:
            ``num_detections`` (N,) int64, ``boxes`` (N, D, 4), ``scores`` (N, D), ``classes``
            (N, D) int64; rows past the number are zero.
        """
        rows = proposals.shape[1]
        boxes, scores, sound = self._candidates(features, proposals, limit)
        live = rows_of(count, rows) & sound
        boxes = torch.where(live[:, :, None, None], boxes, 0.0).transpose(1, 2)
        by_class = torch.where(live.unsqueeze(1), scores[..., :-1].transpose(1, 2), -INFINITY)
        boxes = boxes.expand(-1, self.classes, -1, -1)
        indices, number = suppress(
            boxes,
            by_class,
            self.detections,
            self.spec.nms_threshold,
            self.spec.score_threshold,
        )
        used = rows_of(number, self.detections)
        found = take_rows(boxes.flatten(1, 2), indices)
        rated = by_class.flatten(1).gather(1, indices)
        return {
            "num_detections": number,
            "boxes": torch.where(used.unsqueeze(2), found, 0.0),
            "scores": torch.where(used, rated, 0.0),
            "classes": integer_quotient(indices, rows),
        }

    def _candidates(
        self, features: dict[str, Tensor], proposals: Tensor, limit: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, P, C or 1, 4), clipped; probabilities (N, P, C + 1); which are finite."""
        spec, (n, rows) = self.spec, proposals.shape[:2]
        maps = [features[name] for name in spec.in_features]
        pooled = pool(proposals, maps, int(spec.in_features[0][1:]), spec.pooler_resolution)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        decoded = apply_deltas(deltas, proposals.reshape(n * rows, 4), spec.box_weights)
        probabilities = logits.softmax(dim=1)
        sound = finite(decoded.flatten(1)) & finite(probabilities)
        boxes = clip_to(decoded.reshape(n, -1, 4), limit)
        return (
            boxes.reshape(n, rows, decoded.shape[1], 4),
            probabilities.reshape(n, rows, self.classes + 1),
            sound.reshape(n, rows),
        )


class Detector(nn.Module):
    """From the picture to its detections.

    Args:
        model: the reference.
        padded_hw: the network grid.
        detections: most detections, D.
    """

    def __init__(self, model: InstanceModel, padded_hw: tuple[int, int], detections: int) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.proposal_generator = Proposals(model.proposal_generator, model.recipe, padded_hw)
        self.roi_heads = BoxDetections(model, detections)

    def forward(self, image: Tensor, extent: Tensor) -> dict[str, Tensor]:
        """Stages up to the detections.

        Args:
            image: (N, 3, Hp, Wp), normalised, then padded.
            extent: (N, 2) int64, height and width of each picture in it.

        Returns:
            ``num_detections``, ``boxes``, ``scores``, ``classes``; the pyramid's levels by name;
            ``proposals`` (N, P, 4) and ``proposal_count`` (N,).
        """
        features: dict[str, Tensor] = self.backbone(image)
        height, width = torch.split(extent.to(image.dtype).unsqueeze(1), 1, dim=2)
        limit = torch.cat((width, height, width, height), dim=2)
        proposals, count = self.proposal_generator(features, limit)
        found: dict[str, Tensor] = self.roi_heads(features, proposals, count, limit)
        return {**found, **features, "proposals": proposals, "proposal_count": count}
