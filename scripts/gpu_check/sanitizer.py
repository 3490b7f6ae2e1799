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
"""What the sanitizer says of a GPU it cannot watch."""


LIMIT_S = 42
"""Of each run."""

ENDED = -1000
"""The code of a run that was ended at the limit: no signal's."""


@dataclass(frozen=True)
class Watched:
    """A run under the sanitizer: how it ended, what it wrote, and the errors it counted."""

    code: int
    text: str

    @property
    def errors(self) -> int | None:
        """Errors by the sanitizer's own summary; None where it wrote none."""
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
    """The option that names kernels; older versions have it under another name."""
    asked = ["compute-sanitizer", "--help"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30).stdout
    return "--kernel-name" if "--kernel-name" in said else "--kernel-regex"


def clean(run: Watched) -> bool:
    """Whether the program ended well and the sanitizer counted, and counted nothing."""
    return run.code == 0 and run.errors == 0 and "all agree" in run.text


def noticed(run: Watched) -> bool:
    """Whether the sanitizer found the planted write."""
    return bool(run.errors) and "Invalid __global__ write" in run.text


def main() -> int:
    """memcheck, memcheck of a planted error, racecheck."""
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
