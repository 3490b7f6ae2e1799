"""The TensorRT runner's calls: order, shapes, types, lifetimes; no GPU, no TensorRT."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.backends.onnxrt import OnnxRunner
from pointrend_deploy.run.backends.trt import TrtRunner
from pointrend_deploy.run.open import open_runner
from tests.engine.recorded import FULL
from tests.fixtures.tiny_bundle import colour_picture, write_tiny_bundle
from tests.fixtures.tiny_instances import write_things_bundle
from tests.run.backends.fake_cuda import FakeCuda
from tests.run.backends.played import NAME, set_up, with_engines


@pytest.fixture(params=FULL)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Jetson with one version of TensorRT."""
    return set_up(request.param, monkeypatch, FakeCuda())


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
        assert array.dtype == other[name].dtype


def test_it_gives_what_the_graph_gives(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = with_engines(Bundle.open(write_tiny_bundle(tmp_path / "b")), machine.version)
    runner, reference = TrtRunner(bundle), OnnxRunner(bundle)
    allocated = machine.cuda.calls.count("cudaMalloc")
    shape, dtype = bundle.manifest.inputs[0].shape, bundle.manifest.inputs[0].dtype
    rng = np.random.default_rng(0)
    for _ in range(4):
        batch = {"image": rng.normal(size=shape).astype(dtype)}
        same(runner.infer(batch), reference.infer(batch))
    assert machine.cuda.calls.count("cudaMalloc") == allocated
    assert len(machine.cuda.launched) == 3  # all but the first call
    picture = colour_picture(40, 50)
    np.testing.assert_array_equal(runner.predict(picture)["labels"], reference(picture)["labels"])
    runner.close()
    assert not machine.cuda.memory and not machine.cuda.streams and not machine.cuda.graphs


def test_an_input_whose_memory_is_not_in_order(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = with_engines(Bundle.open(write_tiny_bundle(tmp_path / "b")), machine.version)
    shape = bundle.manifest.inputs[0].shape
    image = np.random.default_rng(0).normal(size=shape[::-1]).astype(np.float32).T
    assert not image.flags.c_contiguous
    same(TrtRunner(bundle).infer({"image": image}), OnnxRunner(bundle).infer({"image": image}))


def test_both_engines_of_a_split_bundle(machine: SimpleNamespace, tmp_path: Path) -> None:
    path = write_things_bundle(tmp_path / "b", layout="split", batch=2)
    bundle = with_engines(Bundle.open(path), machine.version)
    runner, reference = TrtRunner(bundle), OnnxRunner(bundle)
    rng = np.random.default_rng(1)
    batch = {
        spec.name: rng.normal(0, 2, spec.shape).astype(spec.dtype)
        if spec.dtype == "float32"
        else np.tile(np.array(bundle.manifest.canvas.padded_hw), (2, 1))
        for spec in bundle.manifest.inputs
    }
    for _ in range(2):
        same(runner.infer(batch), reference.infer(batch))
    assert runner.infer(batch)["num_detections"].max() > 0


def test_what_cannot_be_recorded_runs_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = set_up(FULL[0], monkeypatch, FakeCuda(capture=False))
    bundle = with_engines(Bundle.open(write_tiny_bundle(tmp_path / "b")), machine.version)
    runner, reference = TrtRunner(bundle), OnnxRunner(bundle)
    spec = bundle.manifest.inputs[0]
    for value in range(3):
        batch = {"image": np.full(spec.shape, value, spec.dtype)}
        same(runner.infer(batch), reference.infer(batch))
    assert not machine.cuda.launched


def test_no_room_on_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = set_up(FULL[0], monkeypatch, FakeCuda(room=100))
    bundle = with_engines(Bundle.open(write_tiny_bundle(tmp_path / "b")), machine.version)
    with pytest.raises(DeployError, match="cudaMalloc: cudaErrorMemoryAllocation"):
        TrtRunner(bundle)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("Runtime.deserialize_cuda_engine", "cannot be deserialised"),
        ("ICudaEngine.create_execution_context", "no room on the GPU"),
        ("IExecutionContext.set_tensor_address", "TensorRT failed"),
    ],
)
def test_what_tensorrt_refuses(
    machine: SimpleNamespace, tmp_path: Path, call: str, words: str
) -> None:
    bundle = with_engines(Bundle.open(write_tiny_bundle(tmp_path / "b")), machine.version)
    machine.played.answers[call] = False if "address" in call else None
    with pytest.raises(DeployError, match=words):
        TrtRunner(bundle)


def test_an_engine_of_other_ends(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = with_engines(Bundle.open(write_tiny_bundle(tmp_path / "b")), machine.version)
    machine.played.answers["ICudaEngine.get_tensor_shape"] = lambda e, name: (1, 2, 3)
    with pytest.raises(DeployError, match=r"the inputs of .* where .* is expected"):
        TrtRunner(bundle)


def test_nothing_is_deserialised_before_the_manifest_says_yes(
    machine: SimpleNamespace, tmp_path: Path
) -> None:
    bundle = with_engines(Bundle.open(write_tiny_bundle(tmp_path / "b")), "9.0.0")
    with pytest.raises(
        DeployError, match=r"no engine for this machine.* built by TensorRT 9\.0\.0"
    ):
        TrtRunner(bundle)
    with pytest.raises(DeployError, match=r"was built by TensorRT 9\.0\.0"):
        TrtRunner(bundle, NAME)
    bundle = with_engines(bundle, machine.version)
    (bundle.path / "engines" / NAME / "model.engine").write_bytes(b"changed")
    with pytest.raises(DeployError, match="is not the file"):
        TrtRunner(bundle)
    assert not [call for call, _ in machine.trt.calls if "deserialize" in call]


def test_it_is_opened_by_name(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = with_engines(Bundle.open(write_tiny_bundle(tmp_path / "b")), machine.version)
    assert isinstance(open_runner(bundle.path, "tensorrt", engine=NAME), TrtRunner)
    with pytest.raises(DeployError, match="holds its weights"):
        open_runner(bundle, "tensorrt", weights="weights.safetensors")
    with pytest.raises(DeployError, match="the runner onnx runs no engine"):
        open_runner(bundle, "onnx", engine=NAME)


def test_which_engine(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "b"))
    with pytest.raises(DeployError, match=r"(?m)has no engine for this machine$"):
        TrtRunner(bundle)
    bundle = with_engines(bundle, machine.version)
    bundle = with_engines(bundle, machine.version, "trt-sm87-fp16-native", precision="fp16")
    with pytest.raises(DeployError, match="several engines fit this machine") as caught:
        TrtRunner(bundle)
    assert "--engine" in caught.value.hint
    assert TrtRunner(bundle, "trt-sm87-fp16-native").engine == "trt-sm87-fp16-native"
