"""The PyTorch reference of an instance model, computed stage by stage for one picture.

Besides its answers it gives the candidates that its two suppressions chose from. They show whether
a box that a graph keeps in place of another one is a near tie or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pointrend_deploy.model.instance.box_head import class_scores, detect
from pointrend_deploy.model.instance.boxes import apply_deltas, by_score, clip, grouped_nms
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.model.instance.rpn import UNIT_WEIGHTS
from pointrend_deploy.parity import gates
from pointrend_deploy.parity.instance.boxes import Detections
from pointrend_deploy.parity.instance.selection import Pool

Array = npt.NDArray[Any]


class TorchPicture:
    """The reference's answers for one picture; see ``parity.instance.verify.PictureReference``.

    Args:
        model: the reference, whose recipe says how many detections are kept.
        x: (1, 3, H, W) float32, the network input.
        fitted_hw: height and width of the picture in it.
    """

    def __init__(self, model: InstanceModel, x: Tensor, fitted_hw: tuple[int, int]) -> None:
        self._model, self.fitted_hw = model, fitted_hw
        with torch.inference_mode():
            self._levels = dict(model.backbone(x))
            boxes, _ = model.proposal_generator(self._levels, fitted_hw)
        self.features: dict[str, Array] = {k: v.numpy() for k, v in self._levels.items()}
        self.proposals: Array = boxes.numpy()

    @torch.inference_mode()
    def proposal_pool(self) -> Pool:
        """Give every level's best anchors, decoded and clipped, and those nearly among them."""
        rpn = self._model.proposal_generator
        spec = rpn.spec
        boxes, scores, groups, taken, doubtful = [], [], [], [], []
        for level, (name, anchors) in enumerate(
            zip(spec.in_features, rpn.anchors(self._levels), strict=True)
        ):
            logits, deltas = (found[0] for found in rpn.rpn_head(self._levels[name]))
            order = by_score(logits)
            last = logits[order[: spec.pre_nms_topk][-1]]
            near = gates.scaled(gates.OBJECTNESS, logits.numpy())
            order = order[logits[order] >= last - near]
            boxes.append(apply_deltas(deltas[order], anchors[order], UNIT_WEIGHTS)[:, 0])
            scores.append(logits[order])
            groups.append(torch.full_like(order, level))
            taken.append(torch.arange(len(order)) < spec.pre_nms_topk)
            cut = len(logits) > spec.pre_nms_topk
            doubtful.append((logits[order] <= last + near) & torch.tensor(cut))
        box, score, group = torch.cat(boxes), torch.cat(scores), torch.cat(groups)
        box = clip(box, self.fitted_hw)
        sides = (box[:, 2:] - box[:, :2]).amin(dim=1)
        finite = box.isfinite().all(dim=1) & score.isfinite()
        unsure = torch.cat(doubtful) | (sides <= 2 * gates.BOXES.limit)
        admitted = torch.cat(taken) & finite & (sides > 0)
        return _pool(
            (box, score, group, unsure, admitted, finite),
            spec.nms_threshold,
            spec.post_nms_topk,
            gates.scaled(gates.OBJECTNESS, score[finite].numpy()),
        )

    @torch.inference_mode()
    def detections(self, proposals: Array) -> tuple[Detections, Callable[[], Pool]]:
        """Detect on (P, 4) proposals; also give the candidates the detections are chosen from."""
        spec = self._model.recipe.box_head
        boxes = torch.from_numpy(np.ascontiguousarray(proposals))
        logits, deltas = self._model.box_predictions(self._levels, boxes)
        found = detect(boxes, logits, deltas, self.fitted_hw, spec)

        @torch.inference_mode()
        def pool() -> Pool:
            probabilities = class_scores(logits, spec)
            moved = apply_deltas(deltas, boxes, spec.box_weights)
            finite = moved.flatten(1).isfinite().all(dim=1) & probabilities.isfinite().all(dim=1)
            least = spec.score_threshold - gates.SCORES.limit
            proposal, label = ((probabilities[:, :-1] > least) & finite[:, None]).nonzero().T
            which = torch.zeros_like(label) if spec.class_agnostic else label
            score = probabilities[proposal, label]
            return _pool(
                (
                    clip(moved[proposal, which], self.fitted_hw),
                    score,
                    label,
                    (score - spec.score_threshold).abs() <= gates.SCORES.limit,
                    score > spec.score_threshold,
                    torch.ones_like(label, dtype=torch.bool),
                ),
                spec.nms_threshold,
                spec.detections,
                gates.SCORES.limit,
            )

        return Detections(found.boxes.numpy(), found.scores.numpy(), found.classes.numpy()), pool

    @torch.inference_mode()
    def mask_stages(self, boxes: Array, classes: Array) -> dict[str, Array]:
        """Compute the mask part's stages on (R, 4) boxes of (R,) classes."""
        stages = self._model.mask_stages(
            self._levels,
            torch.from_numpy(np.ascontiguousarray(boxes)),
            torch.from_numpy(np.ascontiguousarray(classes)),
        )
        return {name: stage.numpy() for name, stage in stages.items()}


def _pool(
    candidates: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    threshold: float,
    limit: int,
    score_tolerance: float,
) -> Pool:
    """Make a pool of the finite candidates, with those that suppression keeps.

    Args:
        candidates: boxes (M, 4), scores, groups, doubtful, admitted and finite (M,), the last three
            bool; suppression chooses among the admitted.
        threshold: IoU above which a box suppresses another.
        limit: largest number of boxes kept.
        score_tolerance: of the pool.
    """
    finite = candidates[-1]
    box, score, group, doubtful, admitted = (part[finite] for part in candidates[:-1])
    rows = admitted.nonzero()[:, 0]
    kept = rows[grouped_nms(box[rows], score[rows], group[rows], threshold, limit)]
    return Pool(
        boxes=box.numpy(),
        scores=score.numpy(),
        groups=group.numpy(),
        doubtful=doubtful.numpy(),
        iou_threshold=threshold,
        limit=limit,
        score_tolerance=score_tolerance,
        kept=kept.numpy(),
    )
