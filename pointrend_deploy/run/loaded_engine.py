"""A deserialised engine: buffers allocated once, its own stream, a CUDA graph where one can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pointrend_deploy.errors import DeployError
from pointrend_deploy.manifest import TensorSpec
from pointrend_deploy.run.cuda import Array, Cuda, contiguous


class LoadedEngine:
    """An engine ready to be called.

    Args:
        trt: the module.
        runtime: its Runtime; kept alive as long as the engine.
        path: of an engine that run.engine_check let through.
        inputs: expected, in any order; -1 stands for a dynamic first dimension.
        outputs: the same.
        most: largest value of that dimension.
        cuda: the stream and the memory; closed with the engine.

    Raises:
        DeployError: TensorRT does not take the file, or its inputs and outputs are others.
    """

    def __init__(
        self,
        trt: Any,
        runtime: Any,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        most: int,
        cuda: Cuda,
    ) -> None:
        self._runtime = runtime
        self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise DeployError(f"{path} cannot be deserialised", "build it again on this machine")
        self._inputs, self._outputs, self._cuda, self._path = inputs, outputs, cuda, path
        self._check(trt)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeployError(f"no room on the GPU to run {path}", "close other programs")
        self._addresses: dict[str, int] = {}
        for spec in (*inputs, *outputs):
            shape = tuple(most if size == -1 else size for size in spec.shape)
            size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
            self._addresses[spec.name] = cuda.allocate(size)
            self._say(self._context.set_tensor_address(spec.name, self._addresses[spec.name]))
        self._dynamic = any(-1 in spec.shape for spec in inputs)
        self._graph: Any = None
        self._tried = self._dynamic

    def _check(self, trt: Any) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        types = {
            "FLOAT": "float32",
            "HALF": "float16",
            "INT8": "int8",
            "INT32": "int32",
            "INT64": "int64",
            "BOOL": "bool",
            "UINT8": "uint8",
        }
        for mode, expected in (("INPUT", self._inputs), ("OUTPUT", self._outputs)):
            has = {
                name: (types.get(engine.get_tensor_dtype(name).name), self._shape(name))
                for name in names
                if engine.get_tensor_mode(name) == trt.TensorIOMode[mode]
            }
            wants = {spec.name: (spec.dtype, spec.shape) for spec in expected}
            if has != wants:
                raise DeployError(
                    f"the {mode.lower()}s of {self._path} are {has} where {wants} is expected",
                    "build it again",
                )

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._engine.get_tensor_shape(name))

    def __call__(self, batch: dict[str, Array]) -> dict[str, Array]:
        """One call: the inputs by name, in their shapes and types, in; all outputs by name out."""
        first = 0
        held = {spec.name: contiguous(batch[spec.name]) for spec in self._inputs}  # until the wait
        for spec in self._inputs:
            array = held[spec.name]
            if -1 in spec.shape:
                first = array.shape[0]
                self._say(self._context.set_input_shape(spec.name, array.shape))
            self._cuda.upload(self._addresses[spec.name], array)
        self._enqueue()
        found = {}
        for spec in self._outputs:
            shape = tuple(first if size == -1 else size for size in spec.shape)
            found[spec.name] = np.empty(shape, spec.dtype)
            self._cuda.download(found[spec.name], self._addresses[spec.name])
        self._cuda.wait()
        return found

    def _enqueue(self) -> None:
        if self._graph is not None:
            self._cuda.launch(self._graph)
            return
        self._execute()
        if not self._tried:  # after a first run, as TensorRT asks: that one sets things up
            self._tried = True
            self._cuda.wait()
            self._graph = self._captured()

    def _captured(self) -> Any:
        """The engine's work as a CUDA graph; None where it cannot be recorded."""
        self._cuda.begin_capture()
        try:
            self._execute()
            return self._cuda.end_capture()
        except DeployError:  # shapes that depend on data make it wait, which a recording forbids
            self._cuda.drop_capture()
            return None

    def _execute(self) -> None:
        self._say(self._context.execute_async_v3(int(self._cuda.stream)))

    def _say(self, worked: bool) -> None:
        if not worked:
            raise DeployError(f"TensorRT failed while running {self._path}", "its log says why")

    def close(self) -> None:
        """Give memory and stream back, then the engine: context, engine, runtime in that order."""
        self._cuda.close()
        self._context = self._engine = self._runtime = None
