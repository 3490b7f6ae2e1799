"""The demonstration models in INT8: calibrated, quantised and scored on scenes with exact truth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import pytest

from pointrend_deploy.bundle.folder import RANGES, Bundle
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.parity.scores.boundary import Scores
from pointrend_deploy.pictures.canvas import from_rgb
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import place
from pointrend_deploy.quantize.qdq import insert
from pointrend_deploy.quantize.ranges import decode
from pointrend_deploy.quantize.scales import all_amax
from pointrend_deploy.run.backends.onnxrt import InMemoryRunner
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.runner import BundleRunner, Precision
from pointrend_deploy.truth.coco import read_coco
from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.quantize import quantize_bundle
from scripts.demo_training.shipped import DEMO, ROOT, read_scenes
from tests.fixtures import shared

SCENES = 12
MIOU = 0.5
BOUNDARY = 1.0
MASK_AP = 0.5
"""Points that INT8 may lose to FP32."""

_BOTH: Final[tuple[Precision, ...]] = ("fp32", "int8")
_SIDES: Final = {"fp32": "reference", "int8": "bundle"}


def quantized(name: str, pictures: str, folder: Path) -> Path:
    """A bundle of a demonstration model with its INT8 graph, calibrated on training scenes."""
    bundle = folder / name
    recipe, weights = ROOT / "export" / f"{name}.toml", DEMO / f"{name}.safetensors"
    shutil.copytree(shared.bundle(recipe, weights, size_hw=(256, 256)), bundle)
    chosen = folder / "pictures"
    chosen.mkdir()
    for path in (ROOT / "calibration" / "scenes").glob(pictures):
        shutil.copy(path, chosen)
    calibrate_bundle(bundle, chosen, CalibrateOptions())
    quantize_bundle(bundle, QuantizeOptions(precision="int8"))
    return bundle


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized("demo_semantic", "semantic_*.png", tmp_path_factory.mktemp("int8"))


def scored(runner: BundleRunner) -> tuple[float, float]:
    """mIoU and 2 px boundary IoU over the first scenes, in percent."""
    manifest = runner.bundle.manifest
    scores = Scores(manifest.semantic)
    for scene in read_scenes()[:SCENES]:
        found = runner.predict(from_rgb(scene.image, manifest))
        labels = found["labels"]  # type: ignore[typeddict-item]
        scores.add({"bundle": labels, "reference": labels}, scene.label.astype(np.int32))
    row = next(row for row in scores.rows() if row.against == "truth")
    boundary = row.boundary_iou["2 px"]
    assert row.miou is not None
    assert boundary is not None
    return 100 * row.miou, 100 * boundary


@pytest.mark.slow
def test_int8_is_as_good_as_fp32_on_scenes(semantic: Path) -> None:
    bundle = Bundle.open(semantic)
    record = bundle.manifest.quantized["int8"]
    assert record.int8_flops is not None
    assert record.int8_flops >= 0.95
    assert len(record.int8) == 39
    fp32, int8 = (scored(open_runner(bundle, "onnx", precision=p)) for p in _BOTH)
    assert fp32[0] - int8[0] <= MIOU
    assert fp32[1] - int8[1] <= BOUNDARY
    # the bars are bars: scales eight times as large, three bits fewer, do not pass them
    seen = decode((semantic / RANGES).read_bytes(), RANGES).tensors["model.onnx"]
    wide = {name: 8 * amax for name, amax in all_amax(seen, "max").items()}
    model = onnx.load(semantic / "model.onnx")
    coarse = {"model.onnx": insert(to_half(model).model, place(model), wide, weights_from=model)}
    spoiled = scored(InMemoryRunner(bundle, coarse, precision="int8"))
    assert fp32[0] - spoiled[0] > 2 * MIOU
    assert fp32[1] - spoiled[1] > 2 * BOUNDARY


@pytest.mark.slow
def test_int8_masks_are_as_good_as_fp32(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    bundle = Bundle.open(quantized("demo_instance", "*.png", tmp_path))
    folder = DEMO / "instance"
    recipe, _ = bundle.manifest.instances
    truth = read_coco(folder / "annotations.json", folder, recipe)
    scorer = Scorer(truth, recipe)
    for precision in _BOTH:
        runner = open_runner(bundle, "onnx", precision=precision)
        for picture in truth.pictures:  # all: AP of a dozen moves by points with one detection
            image = from_rgb(read_picture(picture.path).rgb, bundle.manifest)
            found = runner.predict(image)["instances"]  # type: ignore[typeddict-item]
            scorer.add(picture.image_id, {_SIDES[precision]: found})
    ap = {
        row.prediction: row.ap
        for row in scorer.rows(("reference", "bundle"))
        if row.measure == "mask"
    }
    assert ap["reference"] is not None
    assert ap["bundle"] is not None
    assert 100 * (ap["reference"] - ap["bundle"]) <= MASK_AP
