"""From one row of an instance bundle's outputs to things at the picture's own size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.model import output_stages
from pointrend_deploy.run.instance.instances import (
    Instances,
    instances_at_picture_size,
    probabilities,
)

HW = (40, 60)


def outputs(count: int = 5, rows: int = 7, side: int = 28, seed: int = 0) -> dict[str, Any]:
    """``count`` detections on a canvas of 40 x 60, rows past them zero; logits for masks."""
    rng = np.random.default_rng(seed)
    corners = (rng.uniform(-0.1, 1.1, (count, 2, 2)) * [60, 40]).astype(np.float32)
    out: dict[str, Any] = {
        "num_detections": np.int64(count),
        "boxes": np.zeros((rows, 4), np.float32),
        "scores": np.zeros(rows, np.float32),
        "classes": np.zeros(rows, np.int64),
        "masks": np.zeros((rows, side, side), np.float32),
    }
    out["boxes"][:count] = np.concatenate([corners.min(1), corners.max(1)], 1)
    out["boxes"][:count] = out["boxes"][:count].clip(0, [60, 40, 60, 40])
    out["scores"][:count] = -np.sort(-rng.random(count, np.float32))
    out["classes"][:count] = rng.integers(0, 3, count)
    out["masks"][:count] = rng.normal(0, 4, (count, side, side))
    return out


def found(table: dict[str, Any], picture_hw: tuple[int, int] = HW, **changes: Any) -> Instances:
    return instances_at_picture_size({**table, **changes}, "logits", HW, picture_hw, 3)


def by_reference(table: dict[str, Any], picture_hw: tuple[int, int]) -> dict[str, Any]:
    count = int(table["num_detections"])
    stages = {name: torch.tensor(table[name][:count]) for name in ("boxes", "scores", "classes")}
    stages["mask_logits"] = torch.tensor(table["masks"][:count])[:, None]
    return {name: value.numpy() for name, value in output_stages(stages, HW, picture_hw).items()}


@pytest.mark.parametrize("picture_hw", [HW, (80, 120), (13, 19), (1, 1), (7, 200), (333, 501)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_references_output_stages(picture_hw: tuple[int, int], seed: int) -> None:
    table = outputs(seed=seed)
    ours, theirs = found(table, picture_hw), by_reference(table, picture_hw)
    assert np.array_equal(ours.boxes, theirs["output_boxes"])
    assert np.array_equal(ours.scores, theirs["output_scores"])
    assert np.array_equal(ours.classes, theirs["output_classes"])
    assert ours.masks.shape == theirs["masks"].shape and len(ours) == len(theirs["masks"])
    # sigmoid may differ in the last bit between numpy and torch, so a pixel may
    assert (ours.masks != theirs["masks"]).sum() <= 1e-4 * theirs["masks"].size


def test_the_comparison_sees_other_boxes() -> None:
    table = outputs()
    moved = found(table, (80, 120), boxes=table["boxes"] + np.float32(1))
    assert not np.array_equal(moved.boxes, by_reference(table, (80, 120))["output_boxes"])
    assert (moved.masks != by_reference(table, (80, 120))["masks"]).mean() > 1e-3


def test_given_probabilities_the_pixels_are_the_references() -> None:
    table = outputs(side=56, seed=3)
    logits = torch.tensor(table["masks"])
    table["masks"] = logits.sigmoid().numpy()
    ours = instances_at_picture_size(table, "prob", HW, (333, 501), 3)
    theirs = by_reference({**table, "masks": logits.numpy()}, (333, 501))
    assert np.array_equal(ours.masks, theirs["masks"])


def test_masks_one_by_one_and_as_rle() -> None:
    instances = found(outputs(), (80, 120))
    masks = instances.masks
    assert masks.any(axis=(1, 2)).all()
    for index, mask in enumerate(masks):
        assert np.array_equal(instances.mask(index), mask)
        rle = instances.rle(index)
        assert rle["size"] == [80, 120]
        assert np.array_equal(coco.decode(dict(rle)), mask)


def test_rows_past_the_count_are_not_looked_at() -> None:
    table = outputs()
    for name in ("boxes", "scores", "masks"):
        table[name][5:] = np.nan
    table["classes"][5:] = 99
    instances = found(table)
    assert np.array_equal(instances.masks, found(outputs()).masks)
    assert np.isfinite(instances.boxes).all()


def test_nothing_found() -> None:
    instances = found(outputs(), num_detections=np.int64(0))
    assert len(instances) == len(instances.patches) == 0
    assert instances.masks.shape == (0, *HW) and instances.boxes.shape == (0, 4)


def test_boxes_empty_at_picture_size_are_left_out() -> None:
    table = outputs(3)
    table["boxes"][0] = [10, 10, 10, 20]
    table["boxes"][2] = [61, 5, 70, 9]  # beyond the picture
    instances = found(table)
    assert len(instances) == len(instances.patches) == 1
    assert instances.scores[0] == table["scores"][1]


def test_boxes_beyond_the_picture_are_clipped() -> None:
    table = outputs(1)
    table["boxes"][0] = [-20, -30, 90, 80]
    table["masks"][0] = 5
    instances = found(table, (20, 30))
    assert instances.boxes.tolist() == [[0, 0, 30, 20]]
    assert instances.masks.all()


@pytest.mark.parametrize(
    ("name", "where", "value", "said"),
    [
        ("boxes", (1, 2), np.nan, "boxes that are not finite"),
        ("boxes", (0, 0), np.inf, "boxes that are not finite"),
        ("scores", 4, np.nan, "scores that are not finite"),
        ("classes", 2, 3, "classes out of range"),
        ("classes", 2, -1, "classes out of range"),
        ("masks", (3, 0, 0), np.nan, "mask logits that are no numbers"),
        ("num_detections", (), 8, "8 detections in 7 rows"),
        ("num_detections", (), -1, "-1 detections in 7 rows"),
    ],
)
def test_outputs_that_cannot_be_right_are_refused(
    name: str, where: Any, value: float, said: str
) -> None:
    table = {key: np.array(array) for key, array in outputs().items()}
    found(table)
    table[name][where] = value
    with pytest.raises(DeployError, match=said) as caught:
        found(table)
    assert "compare" in caught.value.hint


def test_probabilities_of_every_form() -> None:
    logits = np.array([-1e4, -100, -0.3, 0, 0.3, 100, np.inf, -np.inf], np.float32)
    with np.errstate(all="raise"):
        expected = torch.tensor(logits).sigmoid().numpy()
    with np.errstate(invalid="raise", divide="raise"):
        ours = probabilities(logits, "logits")
    assert ours.dtype == np.float32 and np.abs(ours - expected).max() < 1e-7
    assert probabilities(expected, "prob") is not None
    near = np.array([np.nextafter(np.float32(1), np.float32(2)), -1e-7], np.float32)
    assert probabilities(near, "prob").tolist() == [1.0, 0.0]
    eighths = probabilities(np.array([0, 127, 128, 255], np.uint8), "prob-u8")
    assert ((eighths >= 0.5) == [False, False, True, True]).all() and eighths.max() == 1
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(DeployError, match="outside"):
            probabilities(np.array([wrong], np.float32), "prob")
