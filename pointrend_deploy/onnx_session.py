"""Graphs of every precision in ONNX Runtime on the CPU: their rounding, not their speed.

Every session of the package is opened here, and every call of one is made here, so that all errors
of ONNX Runtime become a DeployError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import require

CORRUPTING_OPTIMIZERS: Final = ("WeightBiasQuantization",)
"""Optimisations that silently corrupt graphs of FP16 with Q/DQ nodes (ONNX Runtime 1.32).

Where an FP16 Conv or Gemm has Q/DQ on its inputs and its output, WeightBiasQuantization stores the
bias as INT32 with the product of the two scales as its scale. That product is FP16: digits are
lost, and below 6e-8 the whole bias.
"""

REPLACING_OPTIMIZERS: Final = ("QDQSelectorActionTransformer",)
"""Optimisations that put integer kernels in the place of Q/DQ nodes.

Without them the nodes are computed as they stand in the file. The kernels are no quicker here, and
that of MatMul refuses weights of three dimensions with a scale for each column.
"""

_MEMORY = "if memory ran out, use a bundle with a smaller --size or --batch"


def runtime_version() -> str:
    """Return the version of ONNX Runtime, which must be installed, whatever package it is from."""
    import onnxruntime

    return str(onnxruntime.__version__)


def open_session(
    graph: str | Path | bytes,
    threads: int | None = None,
    arena: bool = True,
    hint: str = "a newer ONNX Runtime may; otherwise export the bundle again",
) -> Any:
    """Open an ONNX Runtime session on the CPU that computes a graph of any precision as written.

    Args:
        graph: the file, or its bytes.
        threads: number of threads within one node; None for ONNX Runtime's own choice.
        arena: whether the session keeps memory for its next call. Without an arena a call is
            slower, and memory that is not needed any more is given back at once.
        hint: of the error where the graph does not load.

    Raises:
        DeployError: ONNX Runtime is not installed, or does not load the graph.
    """
    require("run --runner onnx", "use --runner torch")
    import onnxruntime

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
            enable_fallback=0,  # which prints on stdout and loads the same graph again
        )
    except Exception as error:  # its errors share no base class below this one
        raise DeployError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {name}: {first_line(error)}",
            hint,
        ) from error


def call(
    session: Any,
    outputs: Sequence[str],
    inputs: Mapping[str, npt.NDArray[Any]],
    failure: str = "ONNX Runtime failed while running the bundle",
    hint: str = _MEMORY,
) -> list[npt.NDArray[Any]]:
    """Call a session once.

    Args:
        session: from :func:`open_session`.
        outputs: names of the values to compute.
        inputs: arrays by name, exactly those the graph takes.
        failure: how the message of an error begins; what ONNX Runtime says follows.
        hint: of that error.

    Returns:
        The values, in the order of ``outputs``.

    Raises:
        DeployError: ONNX Runtime fails.
    """
    try:
        values: list[npt.NDArray[Any]] = session.run(list(outputs), dict(inputs))
    except Exception as error:  # its errors share no base class below this one
        raise DeployError(f"{failure}: {first_line(error)}", hint) from error
    return values


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
