"""A TensorRT whose engines are played by ONNX Runtime on the graphs they would be built from.

It stands behind the signatures that TensorRT's own bindings document; no GPU takes part.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from pointrend_deploy.bundle.folder import Bundle, sha256_of
from pointrend_deploy.bundle.records import EngineFile, EngineRecord
from pointrend_deploy.engine.flavour import Flavour
from pointrend_deploy.engine.targets import Gpu
from pointrend_deploy.run.backends import trt as trt_runner
from pointrend_deploy.run.backends import trt_choice
from pointrend_deploy.run.backends.trt import Host
from tests.engine.recorded import recorded
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


def set_up(name: str, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> SimpleNamespace:
    played = Played(cuda)
    trt = played.trt = recorded(name, played.answers)
    version = trt.__version__
    monkeypatch.setattr(trt_runner, "installed", lambda: (Flavour("tensorrt", version),))
    importing = SimpleNamespace(import_module=lambda name: trt)
    monkeypatch.setattr(trt_runner, "importlib", importing)  # torch imports by the real one
    for module in (trt_runner, trt_choice):
        monkeypatch.setattr(module, "first_gpu", lambda: Gpu("Orin", 87))
    monkeypatch.setattr(trt_runner, "cuda_runtime", lambda: cuda)
    return SimpleNamespace(trt=trt, cuda=cuda, played=played, version=version)
