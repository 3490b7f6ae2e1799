"""The CUDA calls of a runner, through cuda-python, each with its error as words."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import DeployError

Array = npt.NDArray[Any]


def cuda_runtime() -> Any:
    """The module of cuda-python's runtime calls, of its newer or its older layout.

    Raises:
        DeployError: it is not installed.
    """
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DeployError(
        "cuda-python is not installed", "pip install cuda-python (12.6 or later, as your CUDA)"
    )


class Cuda:
    """A stream and the memory used on it; ``close`` gives both back.

    Args:
        runtime: cuda-python's module of runtime calls.

    Raises:
        DeployError: from every method, where CUDA says no.
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
        """Device memory of that many bytes, at least one; its address."""
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
        """Until all that was put on the stream is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        """What this thread puts on the stream from now on is recorded, not run."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)

    def end_capture(self) -> Any:
        """The recorded work, to be launched."""
        graph = self._call("cudaStreamEndCapture", self.stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._graphs.append((graph, executable))
        return executable

    def drop_capture(self) -> None:
        """End a recording that failed; CUDA then knows of no error any more."""
        self._runtime.cudaStreamEndCapture(self.stream)
        self._runtime.cudaGetLastError()

    def launch(self, executable: Any) -> None:
        """Run recorded work."""
        self._call("cudaGraphLaunch", executable, self.stream)

    def close(self) -> None:
        """Give everything back, once the stream is idle. A second call does nothing."""
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


def contiguous(array: Array) -> Array:
    """The array itself where its memory is in C order, a copy otherwise."""
    return np.ascontiguousarray(array)
