"""How many threads torch and ONNX Runtime use, where several processes share the machine's cores.

With the libraries' own choice, a thread a core in every process, threads spin while they wait for
others that have no core: a test of eight seconds of work then takes two minutes.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch


def limit(threads: int) -> None:
    """Set the threads of this process and, through OMP_NUM_THREADS, of those it starts.

    Args:
        threads: 1 or more, for each of the two libraries; ONNX Runtime may be missing.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    if importlib.util.find_spec("onnxruntime") is not None:
        _limit_onnx_runtime(threads)


def _limit_onnx_runtime(threads: int) -> None:
    """Give sessions this number of threads; one whose caller sets a number keeps that."""
    import onnxruntime

    class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
        """ONNX Runtime's options with this number of threads."""

        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = threads

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        """A session that takes these options where a caller passes none."""

        def __init__(self, graph: Any, sess_options: Any = None, *args: Any, **others: Any) -> None:
            chosen = Options() if sess_options is None else sess_options
            super().__init__(graph, chosen, *args, **others)

    onnxruntime.SessionOptions = Options
    onnxruntime.InferenceSession = Session
