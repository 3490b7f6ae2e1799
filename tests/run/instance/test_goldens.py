"""What detectron2 found, found by the runner too: the golden detections, or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.torch import save

from pointrend_deploy.bundle.folder import WEIGHTS
from pointrend_deploy.bundle.manifest import WeightsRecord
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from pointrend_deploy.run.open import open_runner
from tests.fixtures.tiny_bundle import write_bundle
from tests.fixtures.tiny_instances import things_manifest
from tests.golden_differences import EXPORT, synthetic_tensors
from tests.golden_differences_instance import CASES, RECIPES, golden
from tests.goldens.read import read_input

NAME = "pointrend_rcnn_R50"


def golden_bundle(path: Path, hw: tuple[int, int]) -> Path:
    recipe = load_instance_recipe(EXPORT / RECIPES[NAME])
    weights = save({name: value.contiguous() for name, value in synthetic_tensors(NAME).items()})
    record = WeightsRecord(
        file=WEIGHTS,
        sha256=hashlib.sha256(weights).hexdigest(),
        included=True,
        source_sha256="1" * 64,
        source_name="golden.pkl",
    )
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
        assert np.array_equal(found.classes, theirs["det_classes"])
        assert np.abs(found.boxes - theirs["det_boxes"]).max() < 0.05
        assert np.abs(found.scores - theirs["det_scores"]).max() < 1e-3
        assert found.masks.any(axis=(1, 2)).all()
