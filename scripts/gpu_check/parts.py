"""The parts of the check, each a program of its own with a time limit.

A part writes its result to the file that POINTREND_PART names, as JSON, and ends with 0 where it
passed and :data:`LEFT_OUT` where this machine lacks what it needs. Anything else failed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

ROOT: Final = Path(__file__).resolve().parents[2]
WORK: Final = ROOT / "build" / "gpu_check_work"
"""Folder of the libraries that are built and of every part's own result."""

LEFT_OUT: Final = 5
RESULT: Final = "POINTREND_PART"
KERNELS: Final = "POINTREND_KERNELS"
"""Environment variables: the file that a part writes its result to, and the library of kernels."""

State = Literal["passed", "failed", "timed out", "left out"]


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes:
        name: also the name of its log.
        command: what follows the Python interpreter.
        limit_s: seconds it may take.
        needs_kernels: it fails where no library of kernels was built.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float
    needs_kernels: bool = True


PARTS: Final = (
    Part("build", ("-m", "scripts.gpu_check.build"), 110, needs_kernels=False),
    Part("tests", ("-m", "scripts.gpu_check.tests"), 110),
    Part("kernels", ("benchmarks/gpu_kernels.py",), 70),
    Part("subdivision", ("benchmarks/gpu_subdivision.py",), 170),
    Part("sanitizer", ("-m", "scripts.gpu_check.sanitizer"), 135),
    Part("engine", ("-m", "scripts.gpu_check.engine"), 110, needs_kernels=False),
)


@dataclass(frozen=True)
class Outcome:
    """How a part ended; true in a condition unless it failed or ran out of time.

    Attributes:
        state: a part that is left out has a reason and does not fail the check.
        seconds: how long it took.
        reason: why it did not pass.
        result: the JSON object that it wrote.
    """

    state: State
    seconds: float
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.state in ("passed", "left out")

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as gpu_check.json records it."""
        return asdict(self)


def run_part(part: Part, log: Path, work: Path, seconds_left: float, **environment: str) -> Outcome:
    """Run a part to its end or its time limit, and end the processes that it started.

    Args:
        part: to run.
        log: its stdout and stderr go there.
        work: folder for the part's own result.
        seconds_left: of the whole check.
        environment: added to this process's.
    """
    limit = min(part.limit_s, seconds_left)
    if limit < 5:
        return Outcome("timed out", 0.0, "no time was left for it")
    written = work / f"{part.name}.json"
    written.unlink(missing_ok=True)
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    changed = {RESULT: str(written), "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"}
    begun = time.monotonic()
    with log.open("w") as stream:
        child = subprocess.Popen(
            [sys.executable, *part.command],
            cwd=ROOT,
            env={**os.environ, **changed, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    return _outcome(code, limit, round(time.monotonic() - begun, 1), _read(written), log)


def _outcome(
    code: int | None, limit: float, seconds: float, result: dict[str, Any], log: Path
) -> Outcome:
    reason = str(result.pop("reason", ""))
    if code is None:
        return Outcome("timed out", seconds, f"it ran past {limit:.0f} s", result)
    if code == LEFT_OUT:
        return Outcome("left out", seconds, reason, result)
    if code != 0:
        said = log.read_text(errors="replace").strip().splitlines()
        last = reason or (said[-1][-300:] if said else "it said nothing")
        return Outcome("failed", seconds, f"ended with {code}: {last}", result)
    if not result:
        return Outcome("failed", seconds, "it passed without a result")
    return Outcome("passed", seconds, reason, result)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def give(result: dict[str, Any]) -> None:
    """Write a part's result for the check, or to stdout where the part is run by hand.

    May be called again with more: the last result counts.
    """
    text = json.dumps(result, indent=2)
    named = os.environ.get(RESULT)
    if named:
        Path(named).write_text(text)
    else:
        print(text)


def leave_out(reason: str, **result: Any) -> int:
    """Record why this machine cannot run a part, and return the part's exit code."""
    give({**result, "reason": reason})
    print(f"left out: {reason}", file=sys.stderr)
    return LEFT_OUT
