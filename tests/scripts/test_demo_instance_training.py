"""What trains the instance model: matching, box and mask targets, losses and the joint model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from pointrend_deploy.atomic import write_bytes
from pointrend_deploy.checkpoint.read import read_checkpoint
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.boxes import apply_deltas
from pointrend_deploy.model.instance.model import instance_model_from_tensors
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from scripts.demo_training import instance_losses
from scripts.demo_training.instance_batch import Pool, Targets, random_batch
from scripts.demo_training.instance_losses import JointModel, Samples, losses, uncertain_points
from scripts.demo_training.instance_scene import InstanceScene, boxes_of
from scripts.demo_training.instance_shipped import RECIPE, STANDARD_RECIPE
from scripts.demo_training.instance_targets import (
    NEGATIVE,
    NEITHER,
    POSITIVE,
    deltas_to,
    mask_targets,
    masks_at,
    match,
    overlap,
    sample,
)
from scripts.demo_training.losses import IMPORTANCE
from scripts.demo_training.shipped import DEMO
from scripts.train_demo_instance import started_model, write_both


def two_squares() -> InstanceScene:
    """A 64 x 64 picture of a large red square and a smaller green one over its corner."""
    owner = np.zeros((64, 64), np.uint8)
    owner[8:40, 8:40] = 1
    owner[30:60, 30:50] = 2
    image = np.full((64, 64, 3), 40, np.uint8)
    image[owner == 1] = (220, 30, 30)
    image[owner == 2] = (30, 220, 30)
    return InstanceScene(image, owner, np.array([0, 3]))


def targets_of(scene: InstanceScene) -> Targets:
    boxes, classes = torch.from_numpy(scene.boxes), torch.from_numpy(scene.classes)
    return Targets(boxes, classes, torch.from_numpy(scene.owner))


def joint_model() -> JointModel:
    torch.manual_seed(0)
    return JointModel(load_instance_recipe(RECIPE), load_instance_recipe(STANDARD_RECIPE))


def test_overlap_is_shared_area_over_united_area() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    others = torch.tensor(
        [[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [4.0, 0.0, 8.0, 4.0], [1.0, 1.0, 1.0, 1.0]]
    )
    assert overlap(boxes, others).tolist() == [[1.0, pytest.approx(1 / 3), 0.0, 0.0]]


def test_a_match_needs_the_upper_threshold_and_between_the_two_is_neither() -> None:
    iou = torch.tensor([[0.7, 0.69, 0.3, 0.29, 0.1], [0.1, 0.2, 0.1, 0.1, 0.2]])
    found = match(iou, 0.3, 0.7, best_too=False)
    assert found.label.tolist() == [POSITIVE, NEITHER, NEITHER, NEGATIVE, NEGATIVE]
    assert found.instance.tolist() == [0, 0, 0, 0, 1]


def test_the_best_boxes_of_every_instance_are_positive_where_that_is_asked() -> None:
    iou = torch.tensor([[0.8, 0.1, 0.0, 0.0], [0.5, 0.4, 0.2, 0.4], [0.0, 0.0, 0.0, 0.0]])
    strict = match(iou, 0.3, 0.7, best_too=False)
    assert strict.label.tolist() == [POSITIVE, NEITHER, NEGATIVE, NEITHER]
    iou[1, 0] = 0.1
    lenient = match(iou, 0.3, 0.7, best_too=True)
    assert lenient.label.tolist() == [POSITIVE, POSITIVE, NEGATIVE, POSITIVE]
    assert lenient.instance.tolist() == [0, 1, 1, 1]


def test_without_an_instance_every_box_is_negative() -> None:
    found = match(torch.zeros(0, 5), 0.3, 0.7, best_too=True)
    assert found.label.tolist() == [NEGATIVE] * 5


def test_a_sample_holds_its_share_of_positives_and_fills_up_with_negatives() -> None:
    label = torch.tensor([POSITIVE] * 30 + [NEITHER] * 50 + [NEGATIVE] * 100)
    positive, negative = sample(label, 64, 0.25)
    assert (len(positive), len(negative)) == (16, 48)
    assert (label[positive] == POSITIVE).all()
    assert (label[negative] == NEGATIVE).all()
    assert len(set(positive.tolist() + negative.tolist())) == 64
    few, rest = sample(label[28:], 64, 0.25)
    assert (len(few), len(rest)) == (2, 62)


def test_deltas_lead_to_the_wanted_boxes() -> None:
    boxes = torch.tensor([[10.0, 20.0, 50.0, 40.0], [0.0, 0.0, 8.0, 64.0]])
    wanted = torch.tensor([[12.0, 10.0, 44.0, 60.0], [3.0, 5.0, 9.0, 40.0]])
    weights = (10.0, 10.0, 5.0, 5.0)
    reached = apply_deltas(deltas_to(boxes, wanted, weights), boxes, weights)[:, 0]
    assert torch.allclose(reached, wanted, atol=1e-4)
    assert deltas_to(boxes, boxes, weights).abs().max() == 0.0


def test_masks_are_read_at_points_of_boxes_and_others_do_not_count() -> None:
    scene = two_squares()
    owner = torch.from_numpy(scene.owner)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [8.0, 8.0, 40.0, 40.0]])
    points = torch.tensor([[[0.25, 0.25], [0.9, 0.9], [0.0, 0.5]]]).expand(2, -1, -1)
    read = masks_at(owner, torch.tensor([0, 1]), boxes, points)
    assert read.tolist() == [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]


def test_mask_targets_are_the_mask_on_the_boxes_grid() -> None:
    owner = torch.from_numpy(two_squares().owner)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [8.0, 8.0, 40.0, 40.0], [0.0, 0.0, 64.0, 64.0]])
    targets = mask_targets(owner, torch.tensor([0, 1, 0]), boxes, 16)
    expected = owner[8:40, 8:40].view(16, 2, 16, 2)
    for row, value in ((0, 1), (1, 2)):
        share = (expected == value).float().mean(dim=(1, 3))
        assert torch.equal(targets[row], (share >= 0.5).float())
    seen = torch.ones(8, 8)
    seen[6:, 6:] = 0.0  # the other square starts in the middle of the cells before
    assert torch.equal(targets[2, 2:10, 2:10], seen)
    assert targets[2].sum() == seen.sum()


def test_uncertain_points_gather_where_the_coarse_mask_is_unsure() -> None:
    logits = torch.full((3, 1, 8, 8), 9.0)
    logits[..., 4:] = 0.0
    torch.manual_seed(0)
    points = uncertain_points(logits)
    assert points.shape == (3, instance_losses.POINTS, 2)
    uncertain = int(instance_losses.POINTS * IMPORTANCE)
    assert (points[:, :uncertain, 0] > 0.43).all()
    assert 0.3 < float((points[:, uncertain:, 0] < 0.5).float().mean()) < 0.7


def test_proposals_are_sampled_with_the_class_they_fit() -> None:
    target = targets_of(two_squares())
    far = torch.tensor([[52.0, 2.0, 62.0, 12.0], [8.0, 8.0, 16.0, 16.0]])
    found = instance_losses.sampled_proposals(far, target, num_classes=6)
    assert found.positives == 2
    assert sorted(found.classes[:2].tolist()) == [0, 3]
    assert found.classes[2:].tolist() == [6, 6]
    for box, instance in zip(found.boxes[:2], found.instances[:2], strict=True):
        assert torch.equal(box, target.boxes[instance])


class Perfect(nn.Module):
    """Stands in for the standard mask head: the targets themselves as logits, or their opposite."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, pooled: Tensor) -> Tensor:
        assert len(pooled) == len(self.logits)
        return self.logits


def test_the_mask_loss_compares_each_roi_with_its_own_instance_and_class() -> None:
    joint, target = joint_model(), targets_of(two_squares())
    pictures = [joint.model.backbone(torch.zeros(1, 3, 64, 64))]
    samples = [Samples(target.boxes, target.classes, torch.tensor([0, 1]), 2)]
    masks = mask_targets(target.owner, torch.tensor([0, 1]), target.boxes, 28)
    logits = torch.zeros(2, 6, 28, 28)
    logits[0, 0], logits[1, 3] = 40.0 * masks[0] - 20.0, 40.0 * masks[1] - 20.0

    def mask_loss(right: Tensor) -> float:
        joint.standard = Perfect(right)  # type: ignore[assignment]
        return float(instance_losses.mask_losses(joint, pictures, samples, [target])["mask"])

    assert mask_loss(logits) < 1e-6
    assert mask_loss(-logits) > 10.0
    assert mask_loss(logits.flip(0)) > 0.3
    assert mask_loss(logits.roll(1, dims=1)) == pytest.approx(math.log(2.0), abs=1e-4)


def test_the_box_losses_vanish_for_right_predictions_alone() -> None:
    joint, target = joint_model(), targets_of(two_squares())
    pictures = [joint.model.backbone(torch.zeros(1, 3, 64, 64))]
    moved = target.boxes + torch.tensor([2.0, -1.0, 3.0, 2.0])
    away = torch.tensor([[50.0, 0.0, 60.0, 10.0]])
    classes = torch.tensor([0, 3, 6])
    samples = [Samples(torch.cat((moved, away)), classes, torch.tensor([0, 1, 0]), 2)]
    deltas = torch.zeros(3, 6, 4)
    weights = joint.model.recipe.box_head.box_weights
    deltas[[0, 1], [0, 3]] = deltas_to(moved, target.boxes, weights)
    logits = 30.0 * nn.functional.one_hot(classes, 7).float()

    def box_losses(logits: Tensor, deltas: Tensor) -> dict[str, float]:
        joint.model.roi_heads.box_predictor.forward = (  # type: ignore[method-assign]
            lambda x: (logits, deltas.flatten(1))
        )
        found = instance_losses.box_losses(joint, pictures, samples, [target])
        return {name: float(value.detach()) for name, value in found.items()}

    assert max(box_losses(logits, deltas).values()) < 1e-5
    assert box_losses(logits.roll(1, dims=1), deltas)["class"] > 10.0
    assert box_losses(logits, deltas.roll(1, dims=1))["box"] > 0.1


def test_a_few_steps_on_one_scene_lower_every_loss() -> None:
    joint, scene = joint_model(), two_squares()
    x = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 128 - 1
    optimiser = torch.optim.AdamW(joint.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        found = losses(joint, x, [targets_of(scene)])
        optimiser.zero_grad()
        torch.stack(list(found.values())).sum().backward()
        optimiser.step()
        history.append(torch.stack(list(found.values())).detach())
    assert set(found) == {"rpn_class", "rpn_box", "class", "box", "mask", "coarse", "point"}
    before, after = torch.stack(history[:2]).mean(0), torch.stack(history[-2:]).mean(0)
    assert float(after.sum()) < 0.6 * float(before.sum())
    names = list(found)
    for name in ("rpn_class", "class", "mask", "coarse", "point"):
        assert after[names.index(name)] < before[names.index(name)], name
    without = {name for name, p in joint.named_parameters() if p.grad is None}
    assert not without, "every layer learns"


def test_both_recipes_get_the_same_trunk_and_so_the_same_boxes() -> None:
    joint = joint_model().eval()
    joint.model.roi_heads.box_predictor.cls_score.weight.data.mul_(20.0)
    pointrend, standard = joint.tensors()
    models = [
        instance_model_from_tensors(joint.model.recipe, pointrend),
        instance_model_from_tensors(joint.standard_recipe, standard),
    ]
    stages = [model.stages(two_squares().image) for model in models]
    assert len(stages[0]["boxes"]) > 0
    for name in ("boxes", "scores", "classes"):
        assert torch.equal(stages[0][name], stages[1][name])
    assert stages[0]["mask_logits"].shape[-1] == 224
    assert stages[1]["mask_logits"].shape[-1] == 28


def test_training_starts_from_the_semantic_models_backbone(tmp_path: Path) -> None:
    joint, start = started_model(DEMO / "demo_semantic.safetensors"), {}
    semantic = read_checkpoint(DEMO / "demo_semantic.safetensors")
    for name, value in joint.model.state_dict().items():
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, semantic[name].float()), name
            start[name] = value
    boxes = joint.model.roi_heads.box_predictor.bbox_pred
    assert float(boxes.weight.detach().std()) == pytest.approx(0.001, rel=0.1)
    frozen = {name for name, p in joint.named_parameters() if not p.requires_grad}
    parts = {".".join(name.split(".")[3:5]) for name in frozen}
    assert parts == {"stem.0", "stem.1", *(f"blocks.{number}" for number in range(5))}
    del start["backbone.fpn_output2.weight"]
    write_bytes(tmp_path / "other.safetensors", save(start))
    with pytest.raises(DeployError, match=r"another backbone: backbone\.fpn_output2\.weight"):
        started_model(tmp_path / "other.safetensors")


def test_an_interrupted_training_goes_on_with_both_heads(tmp_path: Path) -> None:
    before = joint_model()
    write_both(before, tmp_path, "")
    after = started_model(tmp_path / "demo_instance.safetensors")
    for name, value in before.named_parameters():
        assert torch.equal(after.get_parameter(name), value.half().float()), name
    assert after.standard.predictor.weight.requires_grad
    (tmp_path / "demo_instance_standard.safetensors").unlink()
    with pytest.raises(DeployError, match="demo_instance_standard"):
        started_model(tmp_path / "demo_instance.safetensors")


def test_a_batch_mirrors_picture_boxes_and_masks_together() -> None:
    scene = two_squares()
    classes = np.full((1, 8), -1, np.int64)
    classes[0, :2] = scene.classes
    pool = Pool(scene.image[None], scene.owner[None], classes)
    spec = load_instance_recipe(RECIPE).input
    x, targets = random_batch(np.random.default_rng(0), pool, 8, spec)
    assert x.shape == (8, 3, 64, 64)
    mirrored = 0
    for picture, target in zip(x, targets, strict=True):
        owner = target.owner.numpy()
        assert np.array_equal(target.boxes.numpy(), boxes_of(owner, 2))
        assert target.classes.tolist() == [0, 3]
        inside = torch.from_numpy(owner == 2)
        assert picture[:, inside].std(dim=1).max() < 1e-3, "one colour where the mask lies"
        mirrored += not np.array_equal(owner, scene.owner)
    assert 0 < mirrored < 8
