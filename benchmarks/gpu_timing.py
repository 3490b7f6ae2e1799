"""Times on a GPU by CUDA events, and the bandwidth that a copy reaches there."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Times:
    """Microseconds of one call.

    Attributes:
        cold_us: median, with the inputs out of the L2 cache.
        cold_quartiles_us: the quartiles around that median.
        warm_us: median of calls one after the other.
        runs: number of cold calls.
        graph: whether the warm calls came from a graph; else they were launched one by one.
    """

    cold_us: float
    cold_quartiles_us: tuple[float, float]
    warm_us: float
    runs: int
    graph: bool

    def as_json(self) -> dict[str, object]:
        """Return the times as JSON-ready values."""
        return asdict(self)


class Timer:
    """Times calls on the current GPU.

    Args:
        runs: timed calls of each kind.
        warm_up: calls before them.
        together: calls in one graph.
    """

    def __init__(self, runs: int = 50, warm_up: int = 5, together: int = 10) -> None:
        self.runs, self.warm_up, self.together = runs, warm_up, together
        # Writing it leaves nothing else in the L2 cache, and takes longer than the host does to
        # enqueue a call, so that no waiting for the host is timed.
        free, _ = torch.cuda.mem_get_info()
        size = min(2**30, free // 8)
        self._scratch = torch.empty(size // 4, dtype=torch.int32, device="cuda")

    def __call__(self, call: Callable[[], object], capture: bool = True) -> Times:
        """Time one call, cold and warm; ``capture`` where it may be captured in a CUDA graph."""
        for _ in range(self.warm_up):
            call()
        torch.cuda.synchronize()
        cold = self._events(call, self._scratch.zero_)
        replay, graph = self._repeated(call, capture)
        warm = statistics.median(self._events(replay, None)) / self.together
        low, middle, high = statistics.quantiles(cold, n=4)
        return Times(middle, (low, high), warm, self.runs, graph)

    def _events(
        self, call: Callable[[], object], before: Callable[[], object] | None
    ) -> list[float]:
        pairs = []
        for _ in range(self.runs):
            if before is not None:
                before()
            start, end = _event(), _event()
            start.record()
            call()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e3 for start, end in pairs]

    def _repeated(
        self, call: Callable[[], object], capture: bool
    ) -> tuple[Callable[[], object], bool]:
        def several() -> None:
            for _ in range(self.together):
                call()

        if not capture:
            return several, False
        graph = captured(several)
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay, True


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def captured(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Capture a call in a CUDA graph; it must have been made once before.

    Raises:
        RuntimeError: the call waits for the GPU, or cannot be captured for another reason.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def copy_bandwidth(timer: Timer) -> float:
    """Return bytes a second, read plus written, of a copy of 1 GiB or an eighth of free memory."""
    free, _ = torch.cuda.mem_get_info()
    count = min(2**30, free // 8) // 4
    source = torch.zeros(count, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    times = timer(lambda: target.copy_(source))
    return 2.0 * 4.0 * count / (times.cold_us * 1e-6)


def sectors(points: Tensor, channels: int, height: int, width: int, element: int) -> int:
    """Count the bytes of the 32-byte sectors that sampling a map (1, C, H, W) at points reads.

    Each channel's plane is read at the same cells. One plane is counted, from a sector's beginning.

    Args:
        points: (1, P, 2) in [0, 1].
        channels: C.
        height: H.
        width: W.
        element: bytes of one value.
    """
    flat = corner_cells(points, height, width)
    return int(torch.unique(flat * element // 32).numel()) * 32 * channels


def corner_cells(points: Tensor, height: int, width: int) -> Tensor:
    """Return the flat indices of the cells that points (1, P, 2) are sampled from, each once."""
    x = (points[0, :, 0].double() * width - 0.5).floor().long()
    y = (points[0, :, 1].double() * height - 0.5).floor().long()
    found = []
    for row in (y, y + 1):
        for column in (x, x + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            found.append((row * width + column)[inside])
    cells: Tensor = torch.unique(torch.cat(found))
    return cells
