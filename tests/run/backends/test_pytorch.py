"""The reference model as a runner: the bundle's canvas, outputs and weights."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save

from pointrend_deploy.bundle.folder import WEIGHTS, Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.semantic.model import SemanticModel, build_model
from pointrend_deploy.run.backends.pytorch import TorchRunner
from pointrend_deploy.run.open import open_runner
from tests.fixtures.tiny_bundle import (
    colour_picture,
    tiny_manifest,
    tiny_recipe,
    weights_record,
    write_bundle,
)

OUTPUTS = ("labels", "coarse", "step0.indices", "step0.point_logits", "logits")


@pytest.fixture(scope="module")
def model() -> SemanticModel:
    torch.manual_seed(0)
    return build_model(tiny_recipe()).requires_grad_(False)


@pytest.fixture(scope="module")
def weights(model: SemanticModel) -> bytes:
    return save({name: value.contiguous() for name, value in model.state_dict().items()})


def make_bundle(path: Path, weights: bytes, included: bool = True, **options: Any) -> Bundle:
    record = weights_record(weights, included)
    manifest = tiny_manifest(**{"size_hw": (64, 96), "outputs": OUTPUTS, **options})
    manifest = msgspec.structs.replace(manifest, weights=record)
    return Bundle.open(write_bundle(path, manifest, {WEIGHTS: weights} if included else {}))


def test_outputs_are_the_models_stages(
    tmp_path: Path, model: SemanticModel, weights: bytes
) -> None:
    runner = open_runner(make_bundle(tmp_path, weights), "torch")
    image = colour_picture(64, 90)  # padded to 64 x 96 by the model and by the canvas alike
    stages = model.stages(image)
    prediction = runner(image)
    assert prediction["labels_from"] == "exact"
    assert np.array_equal(prediction["labels"], stages["labels"][0].numpy())
    assert np.array_equal(prediction["logits"], stages["logits"][0].numpy())
    assert list(prediction["stages"]) == ["coarse", "step0.indices", "step0.point_logits"]
    for name, value in prediction["stages"].items():
        assert np.array_equal(value, stages[name][0].numpy())
    assert not np.array_equal(runner(image[:, :, ::-1])["logits"], prediction["logits"])


def test_a_resized_picture_agrees_with_out_hw(
    tmp_path: Path, model: SemanticModel, weights: bytes
) -> None:
    from pointrend_deploy.pictures.canvas import resize_image

    runner = open_runner(make_bundle(tmp_path, weights), "torch")
    image = colour_picture(128, 192)
    stages = model.stages(resize_image(image, (64, 96)), out_hw=(128, 192))
    prediction = runner(image)
    assert prediction["labels_from"] == "logits-bilinear"
    assert (prediction["labels"] == stages["labels"][0].numpy()).mean() > 0.9999


def test_pre_processing_in_the_graph_means_the_same(tmp_path: Path, weights: bytes) -> None:
    outside = open_runner(make_bundle(tmp_path / "o", weights, batch=2), "torch")
    inside = open_runner(
        make_bundle(tmp_path / "i", weights, batch=2, location="in-graph"), "torch"
    )
    images = [colour_picture(64, 70), colour_picture(30, 96), colour_picture(10, 10)]
    one, other = outside(images), inside(images)
    for left, right in zip(one["logits"], other["logits"], strict=True):
        assert np.array_equal(left, right)


def test_dtypes_are_those_of_the_manifest(tmp_path: Path, weights: bytes) -> None:
    bundle = make_bundle(tmp_path, weights)
    runner = open_runner(bundle, "torch")
    outputs = runner.infer({"image": np.zeros((1, 3, 64, 96), np.float32)})
    assert list(outputs) == list(OUTPUTS)
    assert outputs["labels"].dtype == np.uint8 and outputs["labels"].shape == (1, 64, 96)
    assert outputs["logits"].dtype == np.float32
    assert outputs["step0.indices"].dtype == np.int64


def test_canvas_stages_has_every_stage_in_order(tmp_path: Path, weights: bytes) -> None:
    runner = TorchRunner(make_bundle(tmp_path, weights, outputs=("labels",)))
    names = list(runner.canvas_stages({"image": np.zeros((1, 3, 64, 96), np.float32)}))
    assert names[:4] == ["p2", "p3", "p4", "coarse"] and names[-2:] == ["logits", "labels"]


def test_an_output_the_model_does_not_have(tmp_path: Path, weights: bytes) -> None:
    runner = open_runner(make_bundle(tmp_path, weights, outputs=("labels", "p9")), "torch")
    with pytest.raises(DeployError, match="no stage called p9"):
        runner(colour_picture(64, 96))


# --- weights ------------------------------------------------------------------------------------


def test_weights_left_out_must_be_given(tmp_path: Path, weights: bytes) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights, included=False)
    with pytest.raises(DeployError, match="without its weights") as caught:
        open_runner(bundle, "torch")
    assert "--weights" in caught.value.hint and "model_final.pkl" in caught.value.hint
    given = tmp_path / "mine.safetensors"
    given.write_bytes(weights)
    assert open_runner(bundle, "auto", weights=given).name == "torch"


def test_the_checkpoint_the_bundle_came_from_is_taken_too(
    tmp_path: Path, model: SemanticModel
) -> None:
    given = tmp_path / "model_final.pth"
    torch.save({"model": model.state_dict()}, given)
    other = save({name: value.contiguous() for name, value in model.state_dict().items()})
    bundle = make_bundle(tmp_path / "bundle", other, included=False)
    with pytest.raises(DeployError, match="not the checkpoint"):
        open_runner(bundle, "torch", weights=given)
    record = msgspec.structs.replace(
        bundle.manifest.weights, source_sha256=hashlib.sha256(given.read_bytes()).hexdigest()
    )
    bundle.manifest = msgspec.structs.replace(bundle.manifest, weights=record)
    assert open_runner(bundle, "torch", weights=given)(colour_picture(9, 9))


def test_other_weights_are_refused(tmp_path: Path, weights: bytes) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights)
    given = tmp_path / "other.safetensors"
    given.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(DeployError, match="not the checkpoint this bundle was made from"):
        open_runner(bundle, "torch", weights=given)
    with pytest.raises(DeployError, match="cannot read"):
        open_runner(bundle, "torch", weights=tmp_path / "missing.pkl")


def test_weights_removed_or_changed_in_the_bundle(tmp_path: Path, weights: bytes) -> None:
    bundle = make_bundle(tmp_path, weights)
    (tmp_path / WEIGHTS).write_bytes(weights + b"\0")
    with pytest.raises(DeployError, match="SHA-256"):
        open_runner(bundle, "torch")
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(DeployError, match=f"has no {WEIGHTS}"):
        open_runner(bundle, "torch")


def test_torch_not_installed(tmp_path: Path, weights: bytes, monkeypatch: Any) -> None:
    bundle = make_bundle(tmp_path, weights)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeployError, match="torch needs torch, which is not installed") as caught:
        open_runner(bundle, "torch")
    assert "--runner onnx" in caught.value.hint
