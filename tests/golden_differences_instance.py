"""Our instance models beside detectron2: ``python -m tests.golden_differences_instance``."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointrend_deploy.model.instance.mask_head import PointRendMaskHead
from pointrend_deploy.model.instance.model import InstanceModel, instance_model_from_tensors
from pointrend_deploy.model.instance.roi_align import pool_boxes
from pointrend_deploy.model.pointrend import (
    cell_centres,
    double,
    of_class,
    point_sample,
    regular_grid,
    sample_in_boxes,
)
from pointrend_deploy.recipe.instance import subdivision_start
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from tests import tolerances
from tests.golden_differences import EXPORT, print_differences, synthetic_tensors
from tests.goldens.read import read_golden, read_input

CASES = {
    "inst_288x416": ("pointrend_rcnn_R50", "inst_288x416"),
    "inst_blank": ("pointrend_rcnn_R50", "inst_blank"),
    "maskrcnn_inst_288x416": ("mask_rcnn_R50", "inst_288x416"),
}
RECIPES = {
    "pointrend_rcnn_R50": "pointrend_mask_rcnn_r50_fpn_coco.toml",
    "mask_rcnn_R50": "mask_rcnn_r50_fpn_coco.toml",
}
Found = dict[str, tuple[float, tolerances.Tolerance]]


@cache
def golden_model(name: str) -> InstanceModel:
    recipe = load_instance_recipe(EXPORT / RECIPES[name])
    return instance_model_from_tensors(recipe, synthetic_tensors(name))


@cache
def golden(case: str) -> dict[str, NDArray[Any]]:
    return read_golden(case)


@cache
def golden_stages(case: str) -> dict[str, Tensor]:
    """What our reference answers for the golden's picture, freely running."""
    weights, picture = CASES[case]
    image, out_hw = read_input(picture)
    return golden_model(weights).stages(image, out_hw)


def differences(case: str) -> Found:
    """Largest difference per quantity of one golden, with its tolerance."""
    stages = golden_stages(case)
    return free_running(case, stages) | at_the_goldens_boxes(case, stages)


def free_running(case: str, ours: dict[str, Tensor]) -> Found:
    """Features, proposals, detections and masks as they came out."""
    theirs = golden(case)
    found: Found = {}
    for level in range(2, 7):
        c, y, x = (int(v) for v in theirs[f"p{level}_stride"])
        assert list(ours[f"p{level}"].shape) == theirs[f"p{level}_shape"].tolist()
        sampled = ours[f"p{level}"][:, ::c, ::y, ::x]
        found[f"p{level}"] = (off(sampled, theirs[f"p{level}_s"]), tolerances.FEATURES)
    found |= proposals(ours, theirs)
    found |= detections(ours, theirs)
    if "final_sign_bits" in theirs:
        signs = np.unpackbits(theirs["final_sign_bits"], axis=2).astype(bool)
        differ = (ours["mask_logits"][:, 0].numpy() > 0) != signs
        found["mask signs"] = (float(differ.mean()), tolerances.MASK_SIGNS)
        found |= final_logits(ours, theirs)
    if "mask_probs28_n" in theirs:
        probabilities = ours["mask_logits"][:, 0].sigmoid()
        found["mask probabilities"] = (
            off(probabilities, theirs["mask_probs28_n"]),
            tolerances.MASK_PROBABILITIES,
        )
    return found


@torch.no_grad()
def at_the_goldens_boxes(case: str, ours: dict[str, Tensor]) -> Found:
    """The heads on our features, but at the golden's own boxes and points: no swap spreads."""
    model, theirs = golden_model(CASES[case][0]), golden(case)
    found: Found = {}
    if "cls_logits" in theirs:
        found |= box_head(model, ours, theirs)
    if "step1_idx_sorted" in theirs:
        boxes = torch.from_numpy(theirs["det_boxes"])
        classes = torch.from_numpy(theirs["det_classes"].astype(np.int64))
        found |= coarse_and_points(model, ours, boxes, classes, theirs)
    return found


def off(ours: Tensor, theirs: NDArray[Any]) -> float:
    """Largest absolute difference; infinite where the shapes or a NaN differ."""
    if tuple(ours.shape) != theirs.shape:
        return float("inf")
    if ours.numel() == 0:
        return 0.0
    return float(np.nan_to_num(np.abs(ours.numpy() - theirs), nan=np.inf).max())


def iou(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
    """IoU of every one of ours (A, 4) with every one of theirs (B, 4): (A, B)."""
    a, b = ours[:, None].astype(np.float64), theirs[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    overlap: NDArray[Any] = shared / np.maximum(areas - shared, 1e-12)
    return overlap


def match(overlap: NDArray[Any], least: float) -> list[tuple[int, int]]:
    """Pairs (ours, theirs), each used once, of falling overlap down to the least."""
    pairs: list[tuple[int, int]] = []
    left, right = set(range(overlap.shape[0])), set(range(overlap.shape[1]))
    rows, columns = np.nonzero(overlap >= least)
    for k in np.argsort(-overlap[rows, columns], kind="stable"):
        i, j = int(rows[k]), int(columns[k])
        if i in left and j in right:
            pairs.append((i, j))
            left.remove(i)
            right.remove(j)
    return pairs


def proposals(ours: dict[str, Tensor], theirs: dict[str, NDArray[Any]]) -> Found:
    boxes, logits = ours["proposals"].numpy(), ours["proposal_logits"].numpy()
    pairs = match(iou(boxes, theirs["prop_boxes"]), 0.99)
    most = max(len(boxes), len(theirs["prop_boxes"]))
    apart = max((abs(logits[i] - theirs["prop_logits"][j]) for i, j in pairs), default=0.0)
    return {
        "proposals unmatched": (1 - len(pairs) / most, tolerances.PROPOSALS_UNMATCHED),
        "proposal logits": (float(apart), tolerances.PROPOSAL_LOGITS),
    }


def detections(ours: dict[str, Tensor], theirs: dict[str, NDArray[Any]]) -> Found:
    found: Found = {}
    for prefix, label in (("", "det"), ("output_", "out")):
        boxes, scores, classes = (
            ours[prefix + name].numpy() for name in ("boxes", "scores", "classes")
        )
        same = classes[:, None] == theirs[f"{label}_classes"][None]
        pairs = match(np.where(same, iou(boxes, theirs[f"{label}_boxes"]), 0.0), 0.5)
        left = len(boxes) + len(theirs[f"{label}_boxes"]) - 2 * len(pairs)
        apart = [np.abs(boxes[i] - theirs[f"{label}_boxes"][j]).max() for i, j in pairs]
        scored = [abs(scores[i] - theirs[f"{label}_scores"][j]) for i, j in pairs]
        found[f"{label} unmatched"] = (float(left), tolerances.DETECTIONS_UNMATCHED)
        found[f"{label} boxes"] = (float(max(apart, default=0.0)), tolerances.BOXES)
        found[f"{label} scores"] = (float(max(scored, default=0.0)), tolerances.SCORES)
    return found | pasted(ours, theirs, pairs)


def pasted(
    ours: dict[str, Tensor], theirs: dict[str, NDArray[Any]], pairs: list[tuple[int, int]]
) -> Found:
    """Pasted masks of matched detections: their mean IoU, and how near 0.5 they differ."""
    height, width = (int(v) for v in theirs["out_masks_shape"][1:])
    packed = np.unpackbits(theirs["out_masks_packed"], axis=2)[:, :, :width].astype(bool)
    assert ours["masks"].shape[1:] == (height, width) == packed.shape[1:]
    overlaps, distance = [], 0.0
    for i, j in pairs:
        a, b = ours["masks"][i].numpy(), packed[j]
        overlaps.append(float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0)
        pixels = torch.from_numpy(np.argwhere(a != b)).flip(1) + 0.5
        if len(pixels):
            box, mask = ours["output_boxes"][i], ours["mask_logits"][i, 0].sigmoid()
            points = (pixels - box[:2]) / (box[2:] - box[:2])
            sampled = point_sample(mask[None, None], points[None].to(mask.dtype))
            distance = max(distance, float((sampled - 0.5).abs().max()))
    return {
        "pasted masks": (1 - float(np.mean(overlaps or [1.0])), tolerances.PASTED_MASKS),
        "pasted masks, where they differ": (distance, tolerances.PASTED_BORDERLINE),
    }


def box_head(model: InstanceModel, ours: dict[str, Tensor], theirs: dict[str, Any]) -> Found:
    boxes = torch.from_numpy(theirs["prop_boxes"])
    logits, deltas = model.box_predictions(ours, boxes)
    levels = [ours[f"p{level}"] for level in range(2, 6)]
    pooled = pool_boxes(levels, range(2, 6), boxes[:3], 7)
    return {
        "roi align": (off(pooled[:, ::8], theirs["roi_align_3"]), tolerances.POOLED),
        "class logits": (off(logits, theirs["cls_logits"]), tolerances.BOX_HEAD_LOGITS),
        "box deltas": (off(deltas[:, ::5], theirs["box_deltas_s"]), tolerances.BOX_HEAD_LOGITS),
    }


def coarse_and_points(
    model: InstanceModel,
    ours: dict[str, Tensor],
    boxes: Tensor,
    classes: Tensor,
    theirs: dict[str, NDArray[Any]],
) -> Found:
    head, spec = model.roi_heads.mask_head, model.recipe.point_head
    assert isinstance(head, PointRendMaskHead) and spec is not None
    pooled = sample_in_boxes([ours["p2"]], [4], boxes, regular_grid(boxes, 14))
    pooled = torch.unflatten(pooled, 2, (14, 14))
    stride = int(theirs["pooled_2_channel_stride"])
    coarse = head.coarse_head(pooled)
    at_theirs = model.mask_stages(ours, boxes, classes)
    found: Found = {
        "pooled": (off(pooled[:2, ::stride], theirs["pooled_2"]), tolerances.POOLED),
        "coarse": (
            max(
                off(of_class(coarse, classes)[:, 0], theirs["coarse_sel"]),
                off(coarse[:6], theirs["coarse_full_n"]),
            ),
            tolerances.INSTANCE_COARSE,
        ),
    }
    side, steps = subdivision_start(7, spec.subdivision_steps, spec.subdivision_points)
    points = regular_grid(boxes, side)
    fine = sample_in_boxes([ours["p2"]], [4], boxes, points)
    logits = head.point_head(fine, point_sample(coarse, points))
    logits = torch.unflatten(logits, 2, (side, side))
    found["step 0 point logits"] = (
        max(
            off(of_class(logits, classes)[:, 0], theirs["init_sel"]),
            off(logits[:2, ::8], theirs["init_full_2"]),
        ),
        tolerances.INSTANCE_POINT_LOGITS,
    )
    for step in range(1, steps + 1):
        logits = double(logits)
        r, c, h, w = logits.shape
        indices = torch.from_numpy(theirs[f"step{step}_idx_sorted"].astype(np.int64))
        points = cell_centres(indices, h, w, torch.float32)
        at_golden = head.point_head(
            sample_in_boxes([ours["p2"]], [4], boxes, points), point_sample(coarse, points)
        )
        found[f"step {step} point logits"] = (
            max(
                off(of_class(at_golden, classes)[:, 0], theirs[f"step{step}_point_logits_sel"]),
                off(at_golden[:2, ::8], theirs[f"step{step}_point_logits_full_2"]),
            ),
            tolerances.INSTANCE_POINT_LOGITS,
        )
        uncertain = -of_class(logits, classes)[:, 0].abs().flatten(1)
        found |= strays(step, at_theirs[f"step{step}.indices"], indices, uncertain, theirs)
        where = indices.unsqueeze(1).expand(-1, c, -1)
        logits = logits.reshape(r, c, h * w).scatter(2, where, at_golden).view(r, c, h, w)
    return found


def strays(
    step: int,
    ours: Tensor,
    golden_indices: Tensor,
    uncertain: Tensor,
    theirs: dict[str, NDArray[Any]],
) -> Found:
    worst, apart = 0.0, 0.0
    for roi, (mine, other) in enumerate(zip(ours, golden_indices, strict=True)):
        swapped = sorted(set(mine.tolist()) ^ set(other.tolist()))
        if not swapped:
            continue
        worst = max(worst, len(swapped) / 2 / len(other))
        kth = torch.from_numpy(theirs[f"step{step}_kth_next"][roi])
        distance = (uncertain[roi, swapped][:, None] - kth[None]).abs().amin(1)
        apart = max(apart, float(distance.max()))
    return {
        f"step {step} strays": (worst, tolerances.INSTANCE_STRAYS),
        f"step {step} strays' uncertainty": (apart, tolerances.STRAY_UNCERTAINTY),
    }


def final_logits(ours: dict[str, Tensor], theirs: dict[str, NDArray[Any]]) -> Found:
    """Share of final logits that are apart; a swapped point moves a few of them, no more."""
    final = ours["mask_logits"][:, 0].numpy()
    wide = np.abs(final[:3] - theirs["final_sel_n"]) > tolerances.INSTANCE_COARSE.accept
    sparse = np.abs(final[:, ::4, ::4] - theirs["final_sel_s4"]) > tolerances.INSTANCE_COARSE.accept
    share = max(float(wide.mean()), float(sparse.mean()))
    return {"final logits apart": (share, tolerances.MASK_LOGITS_APART)}


if __name__ == "__main__":
    print_differences(CASES, differences)
