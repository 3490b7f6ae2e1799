"""What every runner does, and ONNX Runtime: pictures in, labels at their own size out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pointrend_deploy.bundle.folder import MODEL, Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.canvas import batch_of, from_rgb
from pointrend_deploy.run import open as open_module
from pointrend_deploy.run.backends.onnxrt import OnnxRunner
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.runner import BundleRunner
from tests.fixtures.tiny_bundle import (
    MEAN,
    STD,
    colour_picture,
    tiny_graph,
    tiny_manifest,
    write_bundle,
    write_tiny_bundle,
)


def expected_labels(image: Any) -> Any:
    """The brightest channel after normalisation: what the tiny graph computes."""
    normal = (image - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return normal.argmax(axis=2).astype(np.uint8)


@pytest.fixture
def bgr() -> Any:
    """A picture that fills the canvas of 32 x 48, BGR."""
    return from_rgb(colour_picture(32, 48), tiny_manifest())


# --- one picture and many -----------------------------------------------------------------------


def test_labels_of_a_picture_that_fits(tmp_path: Path, bgr: Any) -> None:
    runner: BundleRunner = open_runner(write_tiny_bundle(tmp_path), "onnx")
    assert runner.name == "onnx" and runner.bundle.manifest.name == "tiny"
    prediction = runner.predict(bgr)
    assert set(prediction) == {"labels", "labels_from"}
    assert prediction["labels"].dtype == np.uint8 and prediction["labels_from"] == "exact"
    assert np.array_equal(prediction["labels"], expected_labels(bgr))
    assert len(np.unique(prediction["labels"])) == 3


def test_a_wrong_channel_order_gives_other_labels(tmp_path: Path, bgr: Any) -> None:
    runner = open_runner(write_tiny_bundle(tmp_path), "onnx")
    assert not np.array_equal(runner(bgr[:, :, ::-1])["labels"], expected_labels(bgr))


def test_labels_come_back_at_the_pictures_own_size(tmp_path: Path) -> None:
    for name, outputs, how in (
        ("a", ("labels", "logits"), "logits-bilinear"),
        ("b", ("labels",), "labels-nearest"),
    ):
        runner = open_runner(write_tiny_bundle(tmp_path / name, outputs=outputs), "onnx")
        for height, width in ((64, 96), (7, 9), (1, 50), (50, 1), (33, 200)):
            image = from_rgb(colour_picture(height, width), tiny_manifest())
            prediction = runner(image)
            assert prediction["labels"].shape == (height, width)
            assert prediction["labels_from"] == how
        flat = np.full((64, 96, 3), (10, 250, 10), np.uint8)
        assert (runner(flat)["labels"] == 1).all()  # no padding shows at the border


def test_larger_picture_agrees_with_its_own_labels_but_at_boundaries(tmp_path: Path) -> None:
    image = from_rgb(colour_picture(64, 96), tiny_manifest())
    expected = expected_labels(image)
    for name, outputs in (("a", ("labels", "logits")), ("b", ("labels",))):
        runner = open_runner(write_tiny_bundle(tmp_path / name, outputs=outputs), "onnx")
        labels = runner(image)["labels"]
        assert (labels == expected).mean() > 0.95
        assert (labels == expected[::-1]).mean() < 0.9


def test_logits_and_stages_where_exported(tmp_path: Path, bgr: Any) -> None:
    path = write_tiny_bundle(tmp_path, outputs=("labels", "logits", "coarse"))
    prediction = open_runner(path, "onnx")(bgr)
    assert prediction["logits"].shape == (3, 32, 64)
    assert set(prediction["stages"]) == {"coarse"}
    assert prediction["stages"]["coarse"].shape == (3, 8, 16)
    pooled = prediction["logits"].reshape(3, 8, 4, 16, 4).mean(axis=(2, 4))
    assert np.allclose(prediction["stages"]["coarse"], pooled, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_lists_of_any_length_in_order(tmp_path: Path, batch: int, count: int) -> None:
    runner = open_runner(write_tiny_bundle(tmp_path, batch=batch), "onnx")
    images = [
        from_rgb(colour_picture(32, 48 - seed, seed), tiny_manifest()) for seed in range(count)
    ]
    result = runner(images)
    assert set(result) == {"labels", "labels_from"}
    assert len(result["labels"]) == len(result["labels_from"]) == count
    for image, labels in zip(images, result["labels"], strict=True):
        assert np.array_equal(labels, expected_labels(image))
    assert len(runner(tuple(images))["labels"]) == count


def test_list_results_have_the_same_keys(tmp_path: Path, bgr: Any) -> None:
    path = write_tiny_bundle(tmp_path, outputs=("labels", "logits", "coarse"), batch=2)
    runner = open_runner(path, "onnx")
    single, many = runner(bgr), runner([bgr, bgr, bgr])
    assert set(single) == set(many) == {"labels", "labels_from", "logits", "stages"}
    for logits, stages in zip(many["logits"], many["stages"], strict=True):
        assert np.array_equal(logits, single["logits"])
        assert np.array_equal(stages["coarse"], single["stages"]["coarse"])


def test_pre_processing_in_the_graph_gives_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {"outputs": ("labels", "logits"), "batch": 2}
    inside = open_runner(write_tiny_bundle(tmp_path / "i", location="in-graph", **options), "onnx")
    outside = open_runner(write_tiny_bundle(tmp_path / "o", **options), "onnx")
    images = [colour_picture(20, 70), colour_picture(32, 48), colour_picture(90, 10)]
    one, other = inside(images), outside(images)
    for key in ("labels", "logits"):
        for left, right in zip(one[key], other[key], strict=True):
            assert np.allclose(left, right, atol=1e-6)
    assert (one["logits"][0][:, 14:] == 0).all()  # 20 x 70 becomes 14 x 48: zero beyond


def test_arrays_that_are_no_pictures_are_refused(tmp_path: Path, bgr: Any) -> None:
    runner = open_runner(write_tiny_bundle(tmp_path), "onnx")
    for wrong in (bgr[:, :, 0], bgr.astype(np.float32), np.stack([bgr, bgr]), [bgr, bgr[:, :, 0]]):
        with pytest.raises(DeployError, match="H x W x 3 uint8"):
            runner(wrong)


# --- infer --------------------------------------------------------------------------------------


def test_infer_takes_exactly_the_manifests_inputs(tmp_path: Path, bgr: Any) -> None:
    runner = open_runner(write_tiny_bundle(tmp_path, outputs=("labels", "logits")), "onnx")
    batch = batch_of([runner.prepare(bgr)], runner.bundle.manifest)
    assert list(runner.infer(batch)) == ["labels", "logits"]
    image = batch["image"]
    for wrong, message in (
        ({}, "takes the inputs"),
        ({"picture": image}, "takes the inputs"),
        ({"image": image, "extent": image}, "takes the inputs"),
        ({"image": image.astype(np.float64)}, "float64"),
        ({"image": image[:, :, 1:]}, "31, 64"),
    ):
        with pytest.raises(DeployError, match=message):
            runner.infer(wrong)


# --- opening ------------------------------------------------------------------------------------


def test_a_graph_that_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    manifest = tiny_manifest()
    for name, other, what in (
        ("input", tiny_manifest((64, 64)), "inputs"),
        ("dtype", tiny_manifest(location="in-graph"), "inputs"),
        ("output", tiny_manifest(outputs=("labels", "logits")), "outputs"),
        ("none", tiny_manifest(outputs=("logits",)), "outputs"),
    ):
        path = write_bundle(tmp_path / name, manifest, {MODEL: tiny_graph(other)})
        with pytest.raises(DeployError, match=f"the {what} of .* are not those of the manifest"):
            open_runner(path, "onnx")


def test_a_graph_that_is_no_graph(tmp_path: Path) -> None:
    path = write_bundle(tmp_path, tiny_manifest(), {MODEL: b"not a model"})
    with pytest.raises(DeployError, match="cannot load"):
        open_runner(path, "onnx")


def test_an_error_while_running_is_a_deploy_error(tmp_path: Path, bgr: Any) -> None:
    model = onnx.load_from_string(tiny_graph(tiny_manifest()))
    bad = onnx.helper.make_node("Reshape", ["winner", "shape"], ["reshaped"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, -1, 7]), "shape"))
    cast = next(node for node in model.graph.node if node.output[0] == "labels")
    cast.input[0] = "reshaped"
    model.graph.node.insert(list(model.graph.node).index(cast), bad)
    path = write_bundle(tmp_path, tiny_manifest(), {MODEL: model.SerializeToString()})
    with pytest.raises(DeployError, match=r"failed while running|cannot load"):
        open_runner(path, "onnx")(bgr)


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path)
    data = bytearray((path / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (path / MODEL).write_bytes(data)
    with pytest.raises(DeployError, match="SHA-256"):
        open_runner(path, "onnx")


def test_auto_takes_what_is_installed(tmp_path: Path, monkeypatch: Any) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path))
    assert isinstance(open_runner(bundle), OnnxRunner)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert open_module.usual_runner() == "torch"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert open_module.usual_runner() is None
    with pytest.raises(DeployError, match="neither ONNX Runtime nor PyTorch") as caught:
        open_runner(bundle)
    assert "pip install -e" in caught.value.hint and "[onnx]" in caught.value.hint
    with pytest.raises(DeployError, match="needs torch, which is not installed") as caught:
        open_runner(bundle, weights=tmp_path / "w.pkl")
    assert "leave --weights out" in caught.value.hint
    monkeypatch.undo()
    assert open_module.usual_runner() == "onnx"
    with pytest.raises(DeployError, match=r"w\.pkl"):  # PyTorch, which reads weights
        open_runner(bundle, weights=tmp_path / "w.pkl")


def test_onnx_asked_for_but_not_installed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        DeployError, match="onnx needs onnxruntime, which is not installed"
    ) as caught:
        open_runner(write_tiny_bundle(tmp_path), "onnx")
    assert "[onnx]" in caught.value.hint and "--runner torch" in caught.value.hint


def test_choices_that_cannot_be_followed_are_refused(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path)
    with pytest.raises(DeployError, match="'tensorflow'"):
        open_runner(path, "tensorflow")  # type: ignore[arg-type]
    with pytest.raises(DeployError, match="takes its weights from"):
        open_runner(path, "onnx", weights=tmp_path / "w.pkl")
    with pytest.raises(DeployError, match="not a bundle"):
        open_runner(tmp_path / "nowhere")
