"""What detectron2 found, found by the runner too: the golden detections, or nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.torch import save

from pointrend_deploy.bundle.folder import WEIGHTS
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from pointrend_deploy.run.open import open_runner
from tests.fixtures.tiny_bundle import weights_record, write_bundle
from tests.fixtures.tiny_instances import things_manifest
from tests.golden_differences import EXPORT, synthetic_tensors
from tests.golden_differences_instance import CASES, RECIPES, golden, iou, match
from tests.goldens.read import read_input

NAME = "pointrend_rcnn_R50"


def golden_bundle(path: Path, hw: tuple[int, int]) -> Path:
    recipe = load_instance_recipe(EXPORT / RECIPES[NAME])
    weights = save({name: value.contiguous() for name, value in synthetic_tensors(NAME).items()})
    record = weights_record(weights)
    manifest = things_manifest(hw, detections=100, recipe=recipe, mask_side=recipe.mask_side)
    preprocess = msgspec.structs.replace(
        manifest.preprocess,
        channel_order=recipe.input.channel_order,
        pixel_mean=recipe.input.pixel_mean,
        pixel_std=recipe.input.pixel_std,
    )
    manifest = msgspec.structs.replace(manifest, weights=record, preprocess=preprocess)
    return write_bundle(path, manifest, {WEIGHTS: weights})


@pytest.mark.slow
@pytest.mark.parametrize("case", ["inst_blank", "inst_288x416"])
def test_the_runner_finds_what_detectron2_found(tmp_path: Path, case: str) -> None:
    assert CASES[case] == (NAME, case)
    image, _ = read_input(case)
    runner = open_runner(golden_bundle(tmp_path, image.shape[:2]), "torch")
    found = runner(image)["instances"]  # type: ignore[typeddict-item]
    theirs = golden(case)
    assert len(found) == len(theirs["det_boxes"]) == {"inst_blank": 0, "inst_288x416": 28}[case]
    assert found.masks.shape == (len(found), *image.shape[:2])
    if len(found):
        # two of the golden's scores are 5e-6 apart: the order of such a pair is the CPU's rounding
        same_class = found.classes[:, None] == theirs["det_classes"][None]
        overlap = np.where(same_class, iou(found.boxes, theirs["det_boxes"]), 0.0)
        ours, wanted = map(list, zip(*match(overlap, 0.5), strict=True))
        assert len(ours) == len(found)
        assert np.abs(found.boxes[ours] - theirs["det_boxes"][wanted]).max() < 0.05
        assert np.abs(found.scores[ours] - theirs["det_scores"][wanted]).max() < 1e-3
        assert (np.diff(found.scores) <= 0).all()
        assert found.masks.any(axis=(1, 2)).all()
