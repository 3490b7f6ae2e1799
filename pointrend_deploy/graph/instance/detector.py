"""From the picture to its detections with fixed shapes: the traceable RPN, box head and ``detect``.

The same boxes in the same order as the reference's (model/instance/rpn.py and box_head.py). A box
that the reference drops stays as a row here, with a score of -inf, which PointRendNMS does not
count as a candidate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointrend_deploy.graph.instance.specs import anchors_kept, proposal_rows, pyramid_hw
from pointrend_deploy.graph.ops import integer_quotient, pool, suppress
from pointrend_deploy.model.instance.box_head import class_scores
from pointrend_deploy.model.instance.boxes import apply_deltas
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.model.instance.rpn import RPN, UNIT_WEIGHTS, RPNHead, grid_anchors
from pointrend_deploy.recipe.instance import InstanceRecipe

INFINITY = float("inf")


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
        """Compute the stages up to the detections.

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


class Proposals(nn.Module):
    """All levels' candidates, NMS within each level, and the best of what is left.

    Args:
        rpn: the reference's.
        recipe: its recipe.
        padded_hw: the network grid.
    """

    def __init__(self, rpn: RPN, recipe: InstanceRecipe, padded_hw: tuple[int, int]) -> None:
        super().__init__()
        spec, sizes = recipe.rpn, pyramid_hw(recipe, padded_hw)
        like = rpn.rpn_head.objectness_logits.weight
        self.levels = spec.in_features
        self.kept = anchors_kept(recipe, padded_hw)
        self.rows = proposal_rows(recipe, padded_hw)
        self.nms_threshold = spec.nms_threshold
        rows = zip(self.levels, spec.anchors, self.kept, strict=True)
        for name, (anchor_sizes, ratios), kept in rows:
            stride = 2 ** int(name[1:])
            anchors = grid_anchors(
                anchor_sizes, ratios, sizes[name], stride, spec.anchor_offset, like
            )
            self.add_module(name, LevelProposals(rpn.rpn_head, anchors.detach(), kept))

    def forward(self, features: dict[str, Tensor], limit: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (N, P, 4) by falling score, zeros past their number; that number, (N,) int64.

        Args:
            features: levels of the pyramid by name.
            limit: (N, 1, 4), width and height of each picture, twice.
        """
        longest = max(self.kept)
        boxes, scores = [], []
        for name, kept in zip(self.levels, self.kept, strict=True):
            box, score = self.get_submodule(name)(features[name], limit)
            if kept < longest:
                box = nn.functional.pad(box, (0, 0, 0, longest - kept))
                score = nn.functional.pad(score, (0, longest - kept), value=-INFINITY)
            boxes.append(box)
            scores.append(score)
        grouped = torch.stack(boxes, dim=1)
        indices, count = suppress(
            grouped, torch.stack(scores, dim=1), self.rows, self.nms_threshold, -INFINITY
        )
        proposals = take_rows(grouped.flatten(1, 2), indices)
        return torch.where(rows_of(count, self.rows).unsqueeze(2), proposals, 0.0), count


class LevelProposals(nn.Module):
    """Candidates of one level: its best anchors, decoded and clipped.

    Args:
        head: the reference's head, shared by all levels.
        anchors: (A, 4) of the level.
        kept: anchors decoded, K.
    """

    anchors: Tensor

    def __init__(self, head: RPNHead, anchors: Tensor, kept: int) -> None:
        super().__init__()
        self.head = head
        self.kept = kept
        self.register_buffer("anchors", anchors)

    def forward(self, feature: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, K, 4) and scores (N, K), zeros and -inf where the reference drops one.

        Args:
            feature: (N, C, h, w).
            limit: (N, 1, 4), width and height of each picture, twice.
        """
        logits, deltas = self.head(feature)
        # NaN above all else, as torch sorts it; it takes a place among the best and is dropped.
        scores, order = _best(torch.where(logits <= INFINITY, logits, INFINITY), self.kept)
        chosen = take_rows(deltas, order)
        anchors = nn.functional.embedding(order, self.anchors)
        decoded = apply_deltas(chosen.reshape(-1, 4), anchors.reshape(-1, 4), UNIT_WEIGHTS)
        boxes = decoded.reshape(chosen.shape)
        good = finite(boxes) & finite(scores.unsqueeze(2))
        boxes = clip_to(boxes, limit)
        good = good & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        return torch.where(good.unsqueeze(2), boxes, 0.0), torch.where(good, scores, -INFINITY)


class BoxDetections(nn.Module):
    """The box head over the proposals, then NMS within each class.

    Detections with equal scores of different classes are in the order of the classes; the reference
    has them in the order of the proposals.

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
        """Detect objects among the proposals.

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
        """Boxes (N, P, C or 1, 4), clipped; scores (N, P, C + 1); which are finite."""
        spec, (n, rows) = self.spec, proposals.shape[:2]
        maps = [features[name] for name in spec.in_features]
        first, side = int(spec.in_features[0][1:]), spec.pooler_resolution
        pooled = pool(proposals, maps, first, side, spec.sampling_ratio)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        decoded = apply_deltas(deltas, proposals.reshape(n * rows, 4), spec.box_weights)
        probabilities = class_scores(logits, spec)
        sound = finite(decoded.flatten(1)) & finite(probabilities)
        boxes = clip_to(decoded.reshape(n, -1, 4), limit)
        return (
            boxes.reshape(n, rows, decoded.shape[1], 4),
            probabilities.reshape(n, rows, self.classes + 1),
            sound.reshape(n, rows),
        )


def finite(values: Tensor) -> Tensor:
    """Find where all values of the last dimension are finite: (..., K) -> (...) bool.

    A comparison with infinity and a minimum, since only some versions of TensorRT have IsInf and
    IsNaN.
    """
    return (values.abs() < INFINITY).to(values.dtype).amin(dim=-1) > 0.5


def clip_to(boxes: Tensor, limit: Tensor) -> Tensor:
    """Clip boxes (N, K, 4) to [0, limit], limit (N, 1, 4) in pixels."""
    return torch.minimum(boxes.clamp(min=0.0), limit)


def take_rows(rows: Tensor, indices: Tensor) -> Tensor:
    """Take rows of (N, L, K) at indices (N, R) of each picture: (N, R, K)."""
    return rows.gather(1, indices.unsqueeze(2).expand(-1, -1, rows.shape[2]))


def rows_of(count: Tensor, rows: int) -> Tensor:
    """Mark the first ``count`` of ``rows`` rows: (N,) int64 -> (N, rows) bool."""
    return torch.arange(rows) < count.unsqueeze(1)


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k highest of (N, L) and their indices; ties to the lower index, as in ONNX."""
    if torch.compiler.is_exporting():
        return torch.topk(scores, k, dim=1)
    found = torch.sort(scores, dim=1, descending=True, stable=True)
    return found.values[:, :k], found.indices[:, :k]
