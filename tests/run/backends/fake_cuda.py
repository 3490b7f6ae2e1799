# ruff: noqa: N801, N802, N815 - the names are CUDA's
"""cuda-python's runtime calls over memory of the host, done when the stream is waited for.

Nothing happens before ``cudaStreamSynchronize``, so a missing wait shows; an address that was not
allocated, a copy past its end, a call on a stream that is gone, waiting while recording: each is an
error. Names and numbers of arguments are those cuda-python 13.0 documents.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from typing import Any

import numpy as np

Work = Callable[[], None]


class FakeCuda:
    """Stands for the module ``cuda.bindings.runtime``."""

    class cudaError_t(enum.IntEnum):
        cudaSuccess = 0
        cudaErrorInvalidValue = 1
        cudaErrorMemoryAllocation = 2
        cudaErrorStreamCaptureUnsupported = 900

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(enum.IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    def __init__(self, room: int = 1 << 30, capture: bool = True) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.streams: dict[int, list[Work]] = {}
        self.recording: list[Work] | None = None
        self.graphs: set[int] = set()
        self.calls: list[str] = []
        self.launched: list[list[Work]] = []
        self.room, self.capture, self._next = room, capture, 0x1000

    def _address(self) -> int:
        self._next += 1 << 24
        return self._next

    def place(self, address: int, size: int) -> np.ndarray:
        """The bytes at an address of the device, which must be of one allocation."""
        assert address in self.memory, f"{address:#x} is not allocated"
        assert size <= self.memory[address].size, "past the end of an allocation"
        return self.memory[address][:size]

    def put(self, stream: int, work: Work) -> None:
        """Put work on a stream, or into the recording."""
        assert stream in self.streams, "not a stream"
        (self.streams[stream] if self.recording is None else self.recording).append(work)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        stream = self._address()
        self.streams[stream] = []
        return self.cudaError_t.cudaSuccess, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        del self.streams[stream]
        return (self.cudaError_t.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        self.calls.append("cudaMalloc")
        if size + sum(m.size for m in self.memory.values()) > self.room:
            return self.cudaError_t.cudaErrorMemoryAllocation, 0
        address = self._address()
        self.memory[address] = np.full(size, 0xCD, np.uint8)
        return self.cudaError_t.cudaSuccess, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: Any, stream: int
    ) -> tuple[Any, ...]:
        assert self.recording is None, "the runner records the engine alone"

        def copy() -> None:
            if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice:
                ctypes.memmove(self.place(dst, count).ctypes.data, src, count)
            else:
                ctypes.memmove(dst, self.place(src, count).ctypes.data, count)

        self.put(stream, copy)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        assert self.recording is None, "a wait while recording"
        for work in self.streams[stream]:
            work()
        self.streams[stream].clear()
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Any, ...]:
        assert stream in self.streams and isinstance(mode, self.cudaStreamCaptureMode)
        self.recording = []
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        recorded, self.recording = self.recording, None
        if not self.capture:
            return self.cudaError_t.cudaErrorStreamCaptureUnsupported, None
        return self.cudaError_t.cudaSuccess, recorded

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        self.graphs.add(id(graph))
        return self.cudaError_t.cudaSuccess, graph

    def cudaGraphLaunch(self, executable: list[Work], stream: int) -> tuple[Any, ...]:
        self.launched.append(executable)
        for work in executable:
            self.put(stream, work)
        return (self.cudaError_t.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable: Any) -> tuple[Any, ...]:
        self.graphs.remove(id(executable))
        return (self.cudaError_t.cudaSuccess,)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        return (self.cudaError_t.cudaSuccess,)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (self.cudaError_t.cudaSuccess,)

    def cudaGetErrorString(self, error: Any) -> tuple[Any, ...]:
        return self.cudaError_t.cudaSuccess, error.name.encode()
