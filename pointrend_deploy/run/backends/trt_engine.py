"""A deserialised engine and the CUDA calls it needs, through cuda-python.

Buffers are allocated once, each engine has its own stream, and its work is recorded as a CUDA graph
where that is possible.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.manifest import GraphEnds
from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import MODULES, require

Array = npt.NDArray[Any]


def cuda_runtime() -> Any:
    """Import cuda-python's module of runtime calls, from its newer or its older layout.

    Raises:
        DeployError: it is not installed.
    """
    require("run --runner tensorrt")
    newer, older = MODULES["cuda-python"]
    try:
        return importlib.import_module(newer)
    except ImportError:
        return importlib.import_module(older)


class Cuda:
    """A CUDA stream and the memory used on it; ``close`` frees both.

    Args:
        runtime: cuda-python's module of runtime calls.

    Raises:
        DeployError: from every method, where CUDA reports an error.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._memory: list[Any] = []
        self._graphs: list[tuple[Any, Any]] = []
        self.stream = self._call("cudaStreamCreate")

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._runtime, name)(*arguments)
        if error != self._runtime.cudaError_t.cudaSuccess:
            text = self._runtime.cudaGetErrorString(error)[1]
            words = text.decode() if isinstance(text, bytes) else str(text)
            raise DeployError(
                f"{name}: {words}",
                "if memory ran out, close other programs or use a smaller --size",
            )
        return values[0] if values else None

    def allocate(self, size: int) -> int:
        """Allocate device memory of ``size`` bytes, at least one; return its address."""
        pointer = self._call("cudaMalloc", max(size, 1))
        self._memory.append(pointer)
        return int(pointer)

    def upload(self, address: int, array: Array) -> None:
        """Copy a C-contiguous array to the device, in the stream's order."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def download(self, array: Array, address: int) -> None:
        """Copy from the device into a C-contiguous array that must live until ``wait``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def wait(self) -> None:
        """Wait until all work on the stream is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        """Record, instead of run, what this thread puts on the stream from now on."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)

    def end_capture(self) -> Any:
        """End the recording and return the recorded work, for :meth:`launch`."""
        graph = self._call("cudaStreamEndCapture", self.stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._graphs.append((graph, executable))
        return executable

    def drop_capture(self) -> None:
        """End a recording that failed, and clear CUDA's error."""
        self._runtime.cudaStreamEndCapture(self.stream)
        self._runtime.cudaGetLastError()

    def launch(self, executable: Any) -> None:
        """Run recorded work."""
        self._call("cudaGraphLaunch", executable, self.stream)

    def close(self) -> None:
        """Free everything when the stream is idle. A second call does nothing."""
        if self.stream is None:
            return
        self.wait()
        for graph, executable in self._graphs:
            self._call("cudaGraphExecDestroy", executable)
            self._call("cudaGraphDestroy", graph)
        for pointer in self._memory:
            self._call("cudaFree", pointer)
        self._call("cudaStreamDestroy", self.stream)
        self._graphs, self._memory, self.stream = [], [], None


class LoadedEngine:
    """An engine ready to be called.

    Args:
        trt: the module.
        runtime: its Runtime; kept alive as long as the engine.
        path: of an engine that :func:`pointrend_deploy.run.backends.trt.check_engine` accepted.
        ends: the expected inputs and outputs, in any order; a first dimension of -1 is dynamic.
        cuda: the stream and the memory; closed with the engine.

    Raises:
        DeployError: TensorRT does not accept the file, or its inputs and outputs are different.
    """

    def __init__(
        self,
        trt: Any,
        runtime: Any,
        path: Path,
        ends: GraphEnds,
        cuda: Cuda,
    ) -> None:
        self._runtime = runtime
        self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise DeployError(f"{path} cannot be deserialised", "build it again on this machine")
        self._inputs, self._outputs, self._cuda, self._path = ends.inputs, ends.outputs, cuda, path
        self._check(trt)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeployError(f"no room on the GPU to run {path}", "close other programs")
        self._addresses: dict[str, int] = {}
        for spec in (*ends.inputs, *ends.outputs):
            shape = tuple(ends.most if size == -1 else size for size in spec.shape)
            size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
            self._addresses[spec.name] = cuda.allocate(size)
            self._say(self._context.set_tensor_address(spec.name, self._addresses[spec.name]))
        self._dynamic = any(-1 in spec.shape for spec in ends.inputs)
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
        """Run the engine once: inputs by name, in their shapes and dtypes; all outputs by name."""
        first = 0
        # all copies stay alive until the wait, because CUDA reads them until then
        kept = {spec.name: contiguous(batch[spec.name]) for spec in self._inputs}
        for spec in self._inputs:
            array = kept[spec.name]
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
        """Record the engine's work as a CUDA graph; None where that is not possible."""
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
        """Free memory and stream, then the context, the engine and the runtime in that order."""
        self._cuda.close()
        self._context = self._engine = self._runtime = None


def contiguous(array: Array) -> Array:
    """Return the array itself where its memory is in C order, a copy otherwise."""
    return np.ascontiguousarray(array)
