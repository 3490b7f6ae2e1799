"""The TensorRT runner's calls: order, shapes, types, lifetimes. No GPU and no TensorRT take part.

The engine is played by ONNX Runtime on the graph it would have been built from, behind the
signatures that TensorRT's own bindings document.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from pointrend_deploy.bundle.folder import Bundle, sha256_of
from pointrend_deploy.bundle.records import EngineFile, EngineRecord
from pointrend_deploy.engine.flavour import Flavour
from pointrend_deploy.engine.targets import Gpu
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.backends import trt as trt_runner
from pointrend_deploy.run.backends.onnxrt import OnnxRunner
from pointrend_deploy.run.backends.trt import Host, TrtRunner
from pointrend_deploy.run.open import open_runner
from tests.engine.recorded import FULL, recorded
from tests.fixtures.tiny_bundle import colour_picture, write_tiny_bundle
from tests.fixtures.tiny_instances import write_things_bundle
from tests.run.backends.fake_cuda import FakeCuda

NAME = "trt-sm87-fp32-native"
WORDS = {"float32": "FLOAT", "uint8": "UINT8", "int64": "INT64"}


def with_engines(bundle: Bundle, version: str, name: str = NAME, **changes: Any) -> Bundle:
    """An engine a graph whose content is the graph itself."""
    manifest = bundle.manifest
    sources = [manifest.graphs["fp32"]]
    if manifest.instance is not None:
        sources += manifest.instance.mask_graphs.values()
    folder = bundle.path / "new"
    folder.mkdir()
    engines = []
    for source in sources:
        file = folder / source.replace(".onnx", ".engine")
        file.write_bytes((bundle.path / source).read_bytes())
        engines.append(
            EngineFile(
                file=f"engines/{name}/{file.name}",
                sha256=sha256_of(file),
                source=source,
                source_sha256=manifest.files[source],
            )
        )
    fields: dict[str, Any] = {
        "builder": "tensorrt",
        "version": version,
        "platform": Host("tensorrt", "", None, None).platform,
        "capability": 87,
        "gpu": "Orin",
        "precision": "fp32",
        "ops": "native",
        "workspace_mib": 1024,
        "plugin_sha256": None,
        "plugin_tensorrt": None,
        "timing_cache": None,
        "engines": tuple(engines),
    }
    return bundle.add_engine(name, EngineRecord(**{**fields, **changes}), folder)


class Played:
    """The answers of a TensorRT whose engines are ONNX graphs."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.trt: Any = None
        self.answers: dict[str, Any] = {
            "Runtime.deserialize_cuda_engine": self.deserialize,
            "ICudaEngine.num_io_tensors": lambda e: len(e.ends),
            "ICudaEngine.get_tensor_name": lambda e, index: list(e.ends)[index],
            "ICudaEngine.get_tensor_mode": lambda e, name: e.ends[name][0],
            "ICudaEngine.get_tensor_dtype": lambda e, name: e.ends[name][1],
            "ICudaEngine.get_tensor_shape": lambda e, name: e.ends[name][2],
            "ICudaEngine.create_execution_context": self.context,
            "IExecutionContext.set_tensor_address": self.address,
            "IExecutionContext.set_input_shape": self.shape,
            "IExecutionContext.execute_async_v3": self.execute,
        }

    def deserialize(self, runtime: Any, serialized_engine: bytes) -> Any:
        session = onnxruntime.InferenceSession(serialized_engine)
        words = {"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8", "tensor(int64)": "INT64"}
        engine = object.__new__(self.trt.ICudaEngine)
        ends = {}
        for mode, values in (("INPUT", session.get_inputs()), ("OUTPUT", session.get_outputs())):
            for value in values:
                shape = tuple(-1 if size == "R" else size for size in value.shape)
                kind = self.trt.DataType[words[value.type]]
                ends[value.name] = (self.trt.TensorIOMode[mode], kind, shape)
        engine.__dict__.update(session=session, ends=ends)
        return engine

    def context(self, engine: Any) -> Any:
        made = object.__new__(self.trt.IExecutionContext)
        shapes = {name: end[2] for name, end in engine.ends.items()}
        made.__dict__.update(engine_of=engine, addresses={}, shapes=shapes)
        return made

    def address(self, context: Any, name: str, memory: int) -> bool:
        assert name in context.engine_of.ends
        context.addresses[name] = memory
        return True

    def shape(self, context: Any, name: str, shape: tuple[int, ...]) -> bool:
        assert context.engine_of.ends[name][2][0] == -1
        context.shapes[name] = shape
        return True

    def execute(self, context: Any, stream_handle: int) -> bool:
        ends = context.engine_of.ends
        assert set(context.addresses) == set(ends), "an address is not set"
        types = {word: np.dtype(name) for name, word in WORDS.items()}
        shapes = dict(context.shapes)

        def work() -> None:
            feed = {}
            for name, (mode, kind, _) in ends.items():
                if mode == self.trt.TensorIOMode.INPUT:
                    dtype = types[kind.name]
                    size = int(np.prod(shapes[name])) * dtype.itemsize
                    raw = self.cuda.place(context.addresses[name], size)
                    feed[name] = raw.view(dtype).reshape(shapes[name]).copy()
            outputs = context.engine_of.session.run(None, feed)
            names = [n for n, end in ends.items() if end[0] == self.trt.TensorIOMode.OUTPUT]
            for name, array in zip(names, outputs, strict=True):
                raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                self.cuda.place(context.addresses[name], raw.size)[:] = raw

        self.cuda.put(stream_handle, work)
        return True


@pytest.fixture(params=FULL)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Jetson with one version of TensorRT."""
    return set_up(request.param, monkeypatch, FakeCuda())


def set_up(name: str, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> SimpleNamespace:
    played = Played(cuda)
    trt = played.trt = recorded(name, played.answers)
    version = trt.__version__
    monkeypatch.setattr(trt_runner, "installed", lambda: (Flavour("tensorrt", version),))
    monkeypatch.setattr(trt_runner.importlib, "import_module", lambda module: trt)
    monkeypatch.setattr(trt_runner, "first_gpu", lambda: Gpu("Orin", 87))
    monkeypatch.setattr(trt_runner, "cuda_runtime", lambda: cuda)
    return SimpleNamespace(trt=trt, cuda=cuda, played=played, version=version)


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
