"""compare --precision of instance bundles, both layouts: the mask parts see the same boxes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from PIL import Image

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.record.precisions import PrecisionColumn
from pointrend_deploy.verbs.compare import compare_bundle, record
from tests.fixtures import tiny_instance
from tests.verbs.export.test_instance import SIZE, bundles, traced, weights
from tests.verbs.test_compare_precisions import perturbed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["bundles", "traced", "weights"]  # fixtures: bundles of each layout, traced once

pytestmark = pytest.mark.slow
BLOCK = "backbone.bottom_up.blocks.6"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(2):
        Image.fromarray(tiny_instance.picture(*SIZE, seed)).save(folder / f"{seed}.png")
    return folder


def put(folder: Path, noise: Mapping[str, tuple[float, str]]) -> None:
    """Add an fp16 graph: the FP32 one with noise on weights, by file a share and a module path."""
    bundle = Bundle.open(folder)
    names = bundle.manifest.graphs_of("fp32")
    files = {
        name.replace(".onnx", ".fp16.onnx"): perturbed(folder / name, *noise.get(name, (0.0, "")))
        for name in names
    }
    made = tuple(files)

    def change(manifest: Manifest) -> Manifest:
        _, export = manifest.instances
        if export.mask_graphs:
            masks = {**export.mask_graphs, "fp16": made[1]}
            export = msgspec.structs.replace(export, mask_graphs=masks)
        graphs = {**manifest.graphs, "fp16": made[0]}
        return msgspec.structs.replace(manifest, graphs=graphs, instance=export)

    bundle.update(files, change)


def compared(folder: Path, images: Path) -> PrecisionColumn:
    result = compare_bundle(folder, images, precisions=("fp16",))
    assert result.run, [gate for gate in result.run.gates if not gate]
    record(result)
    table = results.of_bundle(Bundle.open(folder)).precisions
    assert table is not None and table.stage_pictures == 2
    assert table.columns[0].found_reference is not None
    return table.columns[1]


@pytest.mark.parametrize("layout", ["single", "split"])
def test_the_error_is_found_where_it_was_planted(
    bundles: dict[str, Path], images: Path, tmp_path: Path, layout: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles[layout], folder)
    put(folder, {})
    same = compared(folder, images)
    names = [row.stage for row in same.stages]
    assert names[0] == "backbone.bottom_up.stem"
    assert names.index("p2") < names.index("proposal_generator.rpn_head.objectness_logits")
    assert names.index("roi_heads.box_predictor.cls_score") < names.index("coarse")
    assert names[-1] == "mask_logits"
    assert all(row.noise == 0 for row in same.stages), same.stages
    assert [(row.step, row.share) for row in same.points] == [(1, 1.0), (2, 1.0)]
    assert same.found_fp32 is not None and same.found_fp32.matched > 5
    assert same.points[0].sets == same.found_fp32.matched
    assert same.found_fp32.mask_iou_min == 1.0

    # the mask part alone: boxes, and all before it, are as they were
    part = {"single": "model.onnx", "split": "masks.onnx"}[layout]
    put(folder, {part: (0.5, "roi_heads.mask_head.coarse_head")})
    masks = compared(folder, images)
    noise = {row.stage: row.noise for row in masks.stages}
    assert noise["roi_heads.box_predictor.cls_score"] == noise["p2"] == 0
    assert noise["coarse"] and noise["mask_logits"]
    assert 0 < masks.points[-1].share < 1
    assert masks.found_fp32 is not None and masks.found_fp32.box_px == 0
    assert masks.found_fp32.mask_iou_mean is not None and masks.found_fp32.mask_iou_mean < 1

    # a block of the backbone: other boxes are found, yet every stage is held on the same ones
    part = {"single": "model.onnx", "split": "detector.onnx"}[layout]
    put(folder, {part: (0.5, BLOCK)})
    early = compared(folder, images)
    noise = {row.stage: row.noise for row in early.stages}
    assert noise["backbone.bottom_up.blocks.5"] == 0
    assert all(noise[name] for name in names[names.index(BLOCK) :]), noise
    assert early.points[0].sets == same.points[0].sets
    assert "the error enters at backbone" in (folder / "report.html").read_text()
