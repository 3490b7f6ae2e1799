"""Norms, convolutions of the box head and the RPN, anchors a level and RoIAlign's sampling ratio.

The reference with them answers as detectron2 did: see tests/goldens/README.md.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pointrend_deploy.model.instance.box_head import detect
from pointrend_deploy.model.instance.boxes import pairwise_iou
from pointrend_deploy.model.instance.model import InstanceModel, instance_model_from_tensors
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from tests import tolerances
from tests.fixtures.tiny_instance import changed, picture
from tests.golden_differences import EXPORT
from tests.goldens.read import Arrays, stored
from tests.goldens.weights import make

CASES = {"gn": "mask_rcnn_r50_fpn_coco_gn.toml", "syncbn": "mask_rcnn_r50_fpn_coco_syncbn.toml"}
FURTHER: dict[str, dict[str, Any]] = {
    "gn": {"anchor_sizes": ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))},
    "syncbn": {
        "num_conv": 2,
        "anchor_sizes": ((12.0, 16.0), (24.0, 32.0), (48.0, 64.0), (96.0, 128.0), (192.0, 256.0)),
        "aspect_ratios": ((0.5, 1.0), (0.4, 1.5), (1.0, 2.0), (0.3, 1.0), (0.7, 3.0)),
    },
}
SAMPLING = {"gn": (0, 0), "syncbn": (2, 3)}
IMAGE = picture(90, 120, 3)


def recipe_of(case: str) -> InstanceRecipe:
    """The recipe in export/, with narrower heads and what the golden has besides."""
    recipe = load_instance_recipe(EXPORT / CASES[case])
    names = tuple("abcde")
    recipe = changed(recipe, "classes", names=names, colours=(), category_ids=())
    recipe = changed(recipe, "fpn", out_channels=64)
    recipe = changed(recipe, "rpn", pre_nms_topk=100, post_nms_topk=60, **FURTHER[case])
    box, mask = SAMPLING[case]
    wide = {"channels": 32}
    recipe = changed(recipe, "box_head", fc_dim=64, detections=8, sampling_ratio=box, **wide)
    return changed(recipe, "mask_head", sampling_ratio=mask, **wide)


@cache
def golden(case: str) -> Arrays:
    return stored(f"{case}_90x120")


def golden_keys(case: str) -> dict[str, tuple[list[int], str]]:
    with torch.device("meta"):
        state = InstanceModel(recipe_of(case)).state_dict()
    return {
        name: (list(value.shape), "float32")
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


@cache
def reference(case: str) -> InstanceModel:
    tensors = {name: torch.from_numpy(v) for name, v in make(golden_keys(case)).items()}
    return instance_model_from_tensors(recipe_of(case), tensors)


@cache
def features(case: str) -> dict[str, Tensor]:
    model = reference(case)
    with torch.no_grad():
        pyramid: dict[str, Tensor] = model.backbone(model.network_input(IMAGE))
    return pyramid


def off(ours: Tensor, theirs: Any) -> float:
    return float((ours.double() - torch.from_numpy(np.asarray(theirs)).double()).abs().max())


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_called_as_in_detectron2(case: str) -> None:
    keys = golden_keys(case)
    listed = json.dumps([[name, keys[name][0]] for name in sorted(keys)]).encode()
    assert hashlib.sha256(listed).hexdigest() == str(golden(case)["names"])


@pytest.mark.parametrize("case", CASES)
def test_pyramid_and_proposals(case: str) -> None:
    theirs, ours = golden(case), features(case)
    for name in ("p2", "p3", "p4", "p5", "p6"):
        sampled = ours[name][0, ::4, ::2, ::2]
        assert off(sampled, theirs[name]) < tolerances.FEATURES.accept, name
    with torch.no_grad():
        proposals, logits = reference(case).proposal_generator(ours, IMAGE.shape[:2])
    wanted = torch.from_numpy(theirs["proposals"])
    assert len(proposals) == len(wanted)
    overlaps = pairwise_iou(torch.cat((wanted, proposals)))[: len(wanted), len(wanted) :]
    overlap, where = overlaps.max(dim=1)
    assert (overlap < 0.99).sum() <= 1
    matched = overlap >= 0.99
    apart = off(logits[where][matched], theirs["proposal_logits"][matched.numpy()])
    assert apart < tolerances.PROPOSAL_LOGITS.accept


@pytest.mark.parametrize("case", CASES)
def test_boxes_and_masks_at_the_golden_s_proposals(case: str) -> None:
    theirs, model, ours = golden(case), reference(case), features(case)
    proposals = torch.from_numpy(theirs["proposals"])
    with torch.no_grad():
        logits, deltas = model.box_predictions(ours, proposals)
    assert off(logits, theirs["class_logits"]) < tolerances.NORMED_BOX_LOGITS.accept
    assert off(deltas, theirs["deltas"]) < tolerances.NORMED_BOX_LOGITS.accept
    found = detect(proposals, logits, deltas, IMAGE.shape[:2], model.recipe.box_head)
    assert len(found.boxes) == len(theirs["boxes"]) == 8
    boxes, classes = torch.from_numpy(theirs["boxes"]), torch.from_numpy(theirs["classes"])
    for box, score, label in zip(boxes, theirs["scores"], classes, strict=True):
        near = (found.boxes - box).abs().amax(dim=1) < tolerances.BOXES.accept
        same = near & (found.classes == label)
        assert same.sum() == 1
        assert off(found.scores[same], score) < tolerances.SCORES.accept
    with torch.no_grad():
        masks = model.mask_stages(ours, boxes, classes)["mask_logits"][:, 0]
    assert off(masks, theirs["mask_logits"]) < tolerances.NORMED_MASK_LOGITS.accept


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("box_head", {"sampling_ratio": 0}),
        ("box_head", {"sampling_ratio": 3}),
        ("mask_head", {"sampling_ratio": 2}),
    ],
)
def test_another_sampling_ratio_is_seen(table: str, values: dict[str, Any]) -> None:
    theirs, ours = golden("syncbn"), features("syncbn")
    model = InstanceModel(changed(recipe_of("syncbn"), table, **values)).eval()
    model.load_state_dict(reference("syncbn").state_dict())
    with torch.no_grad():
        if table == "box_head":
            logits, _ = model.box_predictions(ours, torch.from_numpy(theirs["proposals"]))
            apart = off(logits, theirs["class_logits"]) / tolerances.NORMED_BOX_LOGITS.accept
        else:
            boxes, classes = (torch.from_numpy(theirs[name]) for name in ("boxes", "classes"))
            masks = model.mask_stages(ours, boxes, classes)["mask_logits"][:, 0]
            apart = off(masks, theirs["mask_logits"]) / tolerances.NORMED_MASK_LOGITS.accept
    assert apart > 2
