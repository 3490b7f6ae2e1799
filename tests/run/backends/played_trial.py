"""The process that tries a fresh engine, with a played TensorRT in place of NVIDIA's.

``python -m tests.run.backends.played_trial MODE JOB``. MODE is ``runs``, ``refuses`` (the engine is
not deserialised), ``fails`` (a call returns False) or ``dies`` (the process is ended).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from pointrend_deploy.run.backends import trt as trt_runner
from pointrend_deploy.run.backends import trt_trial
from tests.engine.recorded import FULL, recorded
from tests.run.backends.fake_cuda import FakeCuda
from tests.run.backends.played import Played

MODES = ("runs", "refuses", "fails", "dies")
WORDS = "the engine cannot run on this GPU"


def worker(mode: str) -> tuple[str, ...]:
    """The command of a mode, as ``answers_of`` takes it."""
    assert mode in MODES
    return (sys.executable, "-m", __name__, mode)


def said(answer: Any) -> Any:
    """What TensorRT would answer to any call after it wrote an error."""

    def call(*_: Any, **__: Any) -> Any:
        print(f"[E] {WORDS}", file=sys.stderr, flush=True)
        return answer

    return call


def main() -> None:
    mode = sys.argv.pop(1)
    cuda = FakeCuda()
    played = Played(cuda)
    if mode == "refuses":
        played.answers["Runtime.deserialize_cuda_engine"] = said(None)
    elif mode == "fails":
        played.answers["IExecutionContext.execute_async_v3"] = said(False)
    elif mode == "dies":
        played.answers["IExecutionContext.execute_async_v3"] = lambda *_, **__: os.abort()
    played.trt = recorded(FULL[0], played.answers)
    trt_runner.cuda_runtime = lambda: cuda
    trial = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=trt_trial.Trial)
    assert trial.module == "tensorrt"
    sys.modules["tensorrt"] = played.trt  # type: ignore[assignment]
    trt_trial.main()
    assert not cuda.memory and not cuda.streams, "the engine was not closed"


if __name__ == "__main__":
    main()
