"""Measure the bytes that ONNX Runtime's CPU arena takes for the activations of one graph.

Run as a program it makes a session, runs the graph and lets ONNX Runtime log what the arena
allocates. It is a program because that log goes to the stderr of its process, which a second
session would share.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

_TOTAL = re.compile(r"Total allocated bytes: (\d+)")
_MARK = "activations from here"


def arena_bytes(graph: Path, threads: int) -> int:
    """Return the growth of the arena, in bytes, from a ready session to the end of its second run.

    Weights are in the arena before the mark, inputs belong to the caller, so what is left is
    activations and outputs. The arena extends by the size requested, not by powers of two. The
    second run is the one that uses ONNX Runtime's planned memory pattern.
    """
    command = [sys.executable, __file__, str(graph), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {graph} failed:\n{done.stderr[-2000:]}")
    before, mark, after = done.stderr.partition(_MARK)
    if not mark:
        raise RuntimeError("the arena's log has no mark")
    totals = [int(found) for found in _TOTAL.findall(after)]
    if not totals:
        raise RuntimeError("ONNX Runtime's log names no arena extension")
    start = [int(found) for found in _TOTAL.findall(before)]
    return max(totals) - (start[-1] if start else 0)


def _measure(graph: str, threads: int) -> None:
    import onnxruntime as ort

    ort.set_default_logger_severity(1)
    info = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(info, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
    options = ort.SessionOptions()
    options.log_severity_level = 1
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    feed = {
        value.name: generator.standard_normal(value.shape, dtype=np.float32)
        if value.type == "tensor(float)"
        else np.zeros(value.shape, dtype=np.int64)
        for value in session.get_inputs()
    }
    print(_MARK, file=sys.stderr, flush=True)
    for _ in range(2):
        session.run(None, feed)


if __name__ == "__main__":
    _measure(sys.argv[1], int(sys.argv[2]))
    print(json.dumps({"done": True}))
