"""Graphs of every precision in ONNX Runtime on the CPU: their rounding, not their speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pointrend_deploy.errors import DeployError

CORRUPTING_OPTIMIZERS: Final = ("WeightBiasQuantization",)
"""Optimisations that silently corrupt graphs of FP16 with Q/DQ nodes (ONNX Runtime 1.32).

Where an FP16 Conv or Gemm has Q/DQ on its inputs and its output, this one stores the bias as INT32
with the product of the two scales as its scale, and that product is FP16: it loses digits, and
below 6e-8 the whole bias.
"""

REPLACING_OPTIMIZERS: Final = ("QDQSelectorActionTransformer",)
"""Optimisations that put integer kernels in the place of Q/DQ nodes.

Without them the nodes are computed as they stand in the file. The kernels are no quicker here, and
that of MatMul refuses weights of three dimensions with a scale for each column.
"""


def open_session(graph: str | Path | bytes, threads: int | None = None, arena: bool = True) -> Any:
    """An ONNX Runtime session on the CPU that computes what a graph of any precision says.

    Args:
        graph: the file, or its bytes.
        threads: within one node; None for ONNX Runtime's own choice.
        arena: whether memory once used is kept for the next call; without, a call is slower and
            what it does not need any more goes back at once.

    Raises:
        DeployError: ONNX Runtime is not installed, or does not load the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DeployError(
            f"ONNX Runtime cannot be imported: {error}",
            "pip install onnxruntime, or use --runner torch",
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they come back as exceptions as well
    if threads is not None:
        options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = arena
    name = "the graph" if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[*CORRUPTING_OPTIMIZERS, *REPLACING_OPTIMIZERS],
        )
    except Exception as error:  # its errors share no base class below this one
        raise DeployError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {name}: {first_line(error)}",
            "a newer ONNX Runtime may; otherwise export the bundle again",
        ) from error


def first_line(error: Exception) -> str:
    """What an error says, cut at its first line end."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
