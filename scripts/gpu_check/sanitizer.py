"""Part sanitizer: compute-sanitizer over a small run of every kernel, where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from scripts.gpu_check.parts import KERNELS, ROOT, give, leave_out

UNFIT = "Device not supported"
"""The sanitizer's message for a GPU that it does not support."""


LIMIT_S = 42
"""Seconds that each run may take."""

ENDED = -1000
"""Exit code of a run that was ended at the time limit; no signal has this number."""


@dataclass(frozen=True)
class Watched:
    """A run under the sanitizer: how it ended, what it wrote, and the errors it counted."""

    code: int
    text: str

    @property
    def errors(self) -> int | None:
        """Number of errors in the sanitizer's own summary; None where it wrote no summary."""
        found = re.findall(r"(?:ERROR SUMMARY: |RACECHECK SUMMARY: )(\d+)", self.text)
        return sum(map(int, found)) if found else None


def watch(tool: str, library: str, *words: str, limit_s: float) -> Watched:
    """Run small_run under one of the sanitizer's tools; only this project's kernels are watched."""
    command = [
        *("compute-sanitizer", "--tool", tool, _kernel_option(), "kns=pointrend"),
        *("--report-api-errors", "no"),  # torch tries calls that may fail
        *(sys.executable, "-m", "scripts.gpu_check.small_run", library, *words),
    ]
    # Every tensor its own allocation, so that the sanitizer sees where it ends.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        text = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
        return Watched(ENDED, f"{text}\nran past {limit_s:.0f} s")
    return Watched(done.returncode, done.stdout)


def _kernel_option() -> str:
    """Return the option that selects kernels by name; older versions call it otherwise."""
    asked = ["compute-sanitizer", "--help"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30).stdout
    return "--kernel-name" if "--kernel-name" in said else "--kernel-regex"


def clean(run: Watched) -> bool:
    """Return whether the program ended well and the sanitizer's summary counts no error."""
    return run.code == 0 and run.errors == 0 and "all agree" in run.text


def noticed(run: Watched) -> bool:
    """Return whether the sanitizer found the planted write."""
    return bool(run.errors) and "Invalid __global__ write" in run.text


def main() -> int:
    """Run memcheck, memcheck on a planted error, and racecheck; return the exit code."""
    if shutil.which("compute-sanitizer") is None:
        return leave_out("compute-sanitizer is not installed")
    library = os.environ[KERNELS]
    result: dict[str, Any] = {}
    good = True
    for name, tool, words in (
        ("memcheck", "memcheck", ()),
        ("planted error", "memcheck", ("beyond",)),
        ("racecheck", "racecheck", ()),
    ):
        run = watch(tool, library, *words, limit_s=LIMIT_S)
        print(f"== {name}\n{run.text}")
        if UNFIT in run.text:
            return leave_out(f"compute-sanitizer: {UNFIT}", **result)
        if run.code == ENDED:
            result[name] = f"left out: not done in {LIMIT_S} s"
            continue
        passed = noticed(run) if words else clean(run)
        result[name] = {"passed": passed, "errors": run.errors}
        good = good and passed
        give({**result, "summary": [f"{key}: {value}" for key, value in result.items()]})
    if isinstance(result["memcheck"], str):
        return leave_out(f"memcheck: {result['memcheck']}", **result)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
