"""``scripts/gpu_check.sh``: run the parts one after the other and gather gpu_check.json."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pointrend_deploy import atomic
from scripts.gpu_check.machine import Facts, facts
from scripts.gpu_check.parts import KERNELS, PARTS, ROOT, WORK, Outcome, run_part

FAILED, NO_GPU = 3, 4
KERNELS_LIBRARY = WORK / "kernels" / "libpointrend_kernels.so"


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 passed, 3 a check failed, 4 no GPU."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="scripts/gpu_check.sh", description="Checks on a GPU.")
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu_check")
    parser.add_argument("--out", type=Path, default=out, help="folder of the results")
    parser.add_argument("--parts", type=_parts, default=names, help=f"of {','.join(names)}")
    parser.add_argument("--minutes", type=float, default=8.8, help="for everything (8.8)")
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    gpu, machine = facts()
    given.out.mkdir(parents=True, exist_ok=True)
    if gpu is None:
        _record(given.out, machine, {}, "no GPU", 0.0)
        print("error: no GPU: the CUDA driver is missing or shows none", file=sys.stderr)
        print("hint: run this where nvidia-smi lists a GPU", file=sys.stderr)
        return NO_GPU
    print(f"{gpu.name}, sm_{gpu.capability}, driver {machine['driver']}", file=sys.stderr)
    if "build" in given.parts:
        KERNELS_LIBRARY.unlink(missing_ok=True)  # not that of an earlier build
    outcomes: dict[str, Outcome] = {}
    for part in PARTS:
        if part.name not in given.parts:
            continue
        seconds = time.monotonic() - begun
        _record(given.out, machine, outcomes, "not finished", seconds)
        outcomes[part.name] = outcome = _run(given.out, part.name, given.minutes * 60 - seconds)
        _say(part.name, outcome)
    state = "passed" if all(outcomes.values()) else "failed"
    _record(given.out, machine, outcomes, state, time.monotonic() - begun)
    print(given.out / "gpu_check.json")
    return 0 if state == "passed" else FAILED


def _parts(text: str) -> list[str]:
    names = [part.name for part in PARTS]
    asked = text.split(",")
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {names}")
    return asked


def _run(out: Path, name: str, seconds_left: float) -> Outcome:
    (part,) = [part for part in PARTS if part.name == name]
    WORK.mkdir(parents=True, exist_ok=True)
    if part.needs_kernels and not KERNELS_LIBRARY.is_file():
        return Outcome("failed", 0.0, "the library of kernels was not built")
    library = {KERNELS: str(KERNELS_LIBRARY)}
    return run_part(part, out / f"{name}.log", WORK, seconds_left, **library)


def _record(
    out: Path, machine: Facts, outcomes: dict[str, Outcome], state: str, seconds: float
) -> None:
    """Write what is known so far: a check that is ended early leaves its results."""
    parts: dict[str, Any] = {name: outcome.as_json() for name, outcome in outcomes.items()}
    result = {"state": state, "seconds": round(seconds, 1), "machine": machine, "parts": parts}
    atomic.write_text(out / "gpu_check.json", json.dumps(result, indent=2) + "\n")


def _say(name: str, outcome: Outcome) -> None:
    print(f"{name:12}{outcome.state:10}{outcome.seconds:7.1f} s  {outcome.reason}", file=sys.stderr)
    for line in outcome.result.get("summary", []):
        print(f"    {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
