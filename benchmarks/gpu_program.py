"""The command line of the benchmarks that time the kernels on a GPU."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_timing import Timer

from scripts.gpu_check.launchers import Launchers
from scripts.gpu_check.parts import KERNELS, leave_out


def run(
    program: str | None,
    measure: Callable[[Launchers, Timer], int],
    *,
    runs: int,
    together: int = 10,
    arguments: list[str] | None = None,
) -> int:
    """Run a benchmark from the command line, or leave it out where this machine lacks something.

    Args:
        program: docstring of the benchmark; its first line becomes the description.
        measure: gets the library that POINTREND_KERNELS names and a timer; returns the exit code.
        runs: timed calls of each kind, unless ``--runs`` is given.
        together: calls in one CUDA graph.
        arguments: the command line's, unless given.
    """
    parser = argparse.ArgumentParser(description=(program or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=runs)
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        return leave_out("no NVIDIA GPU, or a torch without CUDA")
    if KERNELS not in os.environ:
        return leave_out(f"{KERNELS} names no library: scripts/build_plugins.sh --kernels")
    return measure(Launchers(Path(os.environ[KERNELS])), Timer(given.runs, together=together))
