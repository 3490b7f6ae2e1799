"""Losses of the demonstration instance model: proposals, boxes and both mask heads at once.

Source: detectron2 modeling/proposal_generator/rpn.py, roi_heads/fast_rcnn.py, mask_head.py, and
projects/PointRend; the PointRend paper, section 3.1 (training).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.mask_head import PointRendMaskHead, StandardMaskHead
from pointrend_deploy.model.instance.model import build_instance_model, instance_model_from_tensors
from pointrend_deploy.model.instance.roi_align import pool_boxes
from pointrend_deploy.model.instance.rpn import UNIT_WEIGHTS
from pointrend_deploy.model.pointrend import of_class, point_sample, regular_grid, sample_in_boxes
from pointrend_deploy.recipe.instance import InstanceRecipe, StandardMaskHeadSpec
from scripts.demo_training import instance_targets
from scripts.demo_training.instance_batch import Targets
from scripts.demo_training.losses import training_points

ANCHORS: Final = 128
"""Anchors a picture in the proposal loss, at most half of them positive."""
PROPOSALS: Final = 64
"""Proposals a picture in the box loss, at most a quarter of them positive."""
MASKS: Final = 8
"""Positive proposals a picture in the mask losses."""
POINTS: Final = 392
"""Points a mask."""

Levels = dict[str, Tensor]


class JointModel(nn.Module):
    """A PointRend model and, on the same trunk and boxes, the standard mask head."""

    def __init__(self, pointrend: InstanceRecipe, standard: InstanceRecipe) -> None:
        super().__init__()
        self.model = build_instance_model(pointrend)
        self.standard_recipe = standard
        head = build_instance_model(standard).roi_heads.mask_head
        if not isinstance(head, StandardMaskHead):
            raise DeployError(f"recipe {standard.name} has no standard mask head")
        self.standard = head

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """State dicts of the PointRend model and of the model with the standard mask head."""
        ours, prefix = self.model.state_dict(), "roi_heads.mask_head."
        trunk = {name: value for name, value in ours.items() if not name.startswith(prefix)}
        other = {prefix + name: value for name, value in self.standard.state_dict().items()}
        return ours, {**trunk, **other}

    def take(self, pointrend: dict[str, Tensor], standard: dict[str, Tensor]) -> None:
        """Take the tensors of two files that :meth:`tensors` was written to.

        Raises:
            DeployError: they do not fit the recipes.
        """
        models = (
            instance_model_from_tensors(self.model.recipe, pointrend),
            instance_model_from_tensors(self.standard_recipe, standard),
        )
        self.model.load_state_dict(models[0].state_dict())
        self.standard.load_state_dict(models[1].roi_heads.mask_head.state_dict())


class Samples(NamedTuple):
    """Proposals of one picture that the heads are trained on, the positive ones first.

    Attributes:
        boxes: (R, 4).
        classes: (R,) int64, C for background.
        instances: (R,) int64; meaningless for background.
        positives: how many.
    """

    boxes: Tensor
    classes: Tensor
    instances: Tensor
    positives: int

    def of_masks(self) -> Samples:
        """The first MASKS positive ones."""
        count = min(self.positives, MASKS)
        return Samples(self.boxes[:count], self.classes[:count], self.instances[:count], count)


def losses(joint: JointModel, x: Tensor, targets: list[Targets]) -> dict[str, Tensor]:
    """Every loss of one batch, a scalar each; the sum is what is trained on.

    Args:
        joint: in train mode.
        x: (N, 3, S, S) normalised network input.
        targets: of the N pictures, each with at least one instance.
    """
    model = joint.model
    features = model.backbone(x)
    found = proposal_losses(joint, features, targets)
    hw = (x.shape[2], x.shape[3])
    pictures: list[Levels] = [
        {name: level[n : n + 1] for name, level in features.items()} for n in range(len(x))
    ]
    samples = []
    for picture, target in zip(pictures, targets, strict=True):
        with torch.no_grad():
            proposals, _ = model.proposal_generator(picture, hw)
        samples.append(sampled_proposals(proposals, target, model.recipe.num_classes))
    found.update(box_losses(joint, pictures, samples, targets))
    found.update(mask_losses(joint, pictures, samples, targets))
    return found


def proposal_losses(
    joint: JointModel, features: Levels, targets: list[Targets]
) -> dict[str, Tensor]:
    """``rpn_class``, binary cross entropy, and ``rpn_box``, L1 of the positives' deltas."""
    rpn = joint.model.proposal_generator
    predicted = [rpn.rpn_head(features[name]) for name in rpn.spec.in_features]
    logits = torch.cat([logit for logit, _ in predicted], dim=1)
    deltas = torch.cat([delta for _, delta in predicted], dim=1)
    anchors = torch.cat(rpn.anchors(features))
    class_loss, box_loss = logits.new_zeros(()), logits.new_zeros(())
    for logit, delta, target in zip(logits, deltas, targets, strict=True):
        matches = instance_targets.match(
            instance_targets.overlap(target.boxes, anchors), 0.3, 0.7, best_too=True
        )
        positive, negative = instance_targets.sample(matches.label, ANCHORS, 0.5)
        chosen = torch.cat((positive, negative))
        wanted = (matches.label[chosen] == instance_targets.POSITIVE).float()
        class_loss = class_loss + F.binary_cross_entropy_with_logits(
            logit[chosen], wanted, reduction="sum"
        )
        goal = target.boxes[matches.instance[positive]]
        wanted = instance_targets.deltas_to(anchors[positive], goal, UNIT_WEIGHTS)
        box_loss = box_loss + (delta[positive] - wanted).abs().sum()
    count = ANCHORS * len(targets)
    return {"rpn_class": class_loss / count, "rpn_box": box_loss / count}


def sampled_proposals(proposals: Tensor, target: Targets, num_classes: int) -> Samples:
    """Proposals and the instances' own boxes, matched at IoU 0.5 and sampled."""
    boxes = torch.cat((proposals, target.boxes))
    matches = instance_targets.match(
        instance_targets.overlap(target.boxes, boxes), 0.5, 0.5, best_too=False
    )
    positive, negative = instance_targets.sample(matches.label, PROPOSALS, 0.25)
    classes = torch.full((len(positive) + len(negative),), num_classes)
    classes[: len(positive)] = target.classes[matches.instance[positive]]
    chosen = torch.cat((positive, negative))
    return Samples(boxes[chosen], classes, matches.instance[chosen], len(positive))


def box_losses(
    joint: JointModel, pictures: list[Levels], samples: list[Samples], targets: list[Targets]
) -> dict[str, Tensor]:
    """``class``, cross entropy, and ``box``, L1 of the positives' deltas for their class."""
    model, spec = joint.model, joint.model.recipe.box_head
    pooled = pooled_at(model.recipe.box_head.in_features, pictures, samples, spec.pooler_resolution)
    logits, deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    classes = torch.cat([s.classes for s in samples])
    boxes = torch.cat([s.boxes for s in samples])
    goals = torch.cat([t.boxes[s.instances] for s, t in zip(samples, targets, strict=True)])
    positive = (classes < model.recipe.num_classes).nonzero()[:, 0]
    wanted = instance_targets.deltas_to(boxes[positive], goals[positive], spec.box_weights)
    per_class = deltas.view(len(deltas), -1, 4)[positive]
    which = torch.zeros_like(positive) if spec.class_agnostic else classes[positive]
    predicted = per_class[torch.arange(len(positive)), which]
    return {
        "class": F.cross_entropy(logits, classes),
        "box": (predicted - wanted).abs().sum() / len(classes),
    }


def pooled_at(
    names: tuple[str, ...], pictures: list[Levels], samples: list[Samples], side: int
) -> Tensor:
    """RoIAlign of every sample of every picture: (sum of R, C, side, side)."""
    levels = [int(name[1:]) for name in names]
    return torch.cat(
        [
            pool_boxes([picture[name] for name in names], levels, s.boxes, side)
            for picture, s in zip(pictures, samples, strict=True)
        ]
    )


def mask_losses(
    joint: JointModel, pictures: list[Levels], samples: list[Samples], targets: list[Targets]
) -> dict[str, Tensor]:
    """``mask`` of the standard head, ``coarse`` and ``point`` of PointRend: cross entropies."""
    spec, points_spec = joint.model.recipe.mask_head, joint.model.recipe.point_head
    head, other = joint.model.roi_heads.mask_head, joint.standard_recipe.mask_head
    if not isinstance(head, PointRendMaskHead) or points_spec is None:
        raise DeployError(f"recipe {joint.model.recipe.name} has no point_head section")
    if isinstance(spec, StandardMaskHeadSpec):
        raise DeployError(f"recipe {joint.model.recipe.name} has a standard mask head")
    chosen = [s.of_masks() for s in samples]
    classes = torch.cat([s.classes for s in chosen])
    side = spec.pooler_resolution
    grids = [
        at_points(picture, spec.in_features, s.boxes, regular_grid(s.boxes, side))
        for picture, s in zip(pictures, chosen, strict=True)
    ]
    coarse = head.coarse_head(torch.unflatten(torch.cat(grids), 2, (side, side)))
    points = uncertain_points(of_class(coarse.detach(), classes))
    parts = torch.split(points, [s.positives for s in chosen])
    fine = torch.cat(
        [
            at_points(picture, points_spec.in_features, s.boxes, part)
            for picture, s, part in zip(pictures, chosen, parts, strict=True)
        ]
    )
    point_logits = of_class(head.point_head(fine, point_sample(coarse, points)), classes)[:, 0]
    standard = joint.standard(
        pooled_at(other.in_features, pictures, chosen, other.pooler_resolution)
    )
    found = {}
    for name, logits in (("mask", standard), ("coarse", coarse)):
        predicted = of_class(logits, classes)[:, 0]
        wanted = torch.cat(
            [
                instance_targets.mask_targets(t.owner, s.instances, s.boxes, logits.shape[-1])
                for s, t in zip(chosen, targets, strict=True)
            ]
        )
        found[name] = F.binary_cross_entropy_with_logits(predicted, wanted)
    labels = torch.cat(
        [
            instance_targets.masks_at(t.owner, s.instances, s.boxes, part)
            for s, t, part in zip(chosen, targets, parts, strict=True)
        ]
    )
    found["point"] = F.binary_cross_entropy_with_logits(point_logits, labels)
    return found


def at_points(picture: Levels, names: tuple[str, ...], boxes: Tensor, points: Tensor) -> Tensor:
    """Features of one picture at points of boxes: (R, C, P)."""
    strides = [2 ** int(name[1:]) for name in names]
    return sample_in_boxes([picture[name] for name in names], strides, boxes, points)


def uncertain_points(logits: Tensor) -> Tensor:
    """Choose the points of each RoI's mask to train on.

    Args:
        logits: (R, 1, side, side) coarse mask logits of each RoI's class.

    Returns:
        (R, POINTS, 2), (x, y) in [0, 1] of the box.
    """
    return training_points(logits, POINTS, lambda sampled: -sampled[:, 0].abs())
