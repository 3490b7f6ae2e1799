"""What tests of real builds need: TensorRT-RTX, and the plugin library built once a run."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.plugins.compilers import SCRIPT, needed, run


def rtx_needed() -> None:
    """Skip where TensorRT-RTX is not installed; fail in CI."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        reason = "tensorrt_rtx is not installed: pip install tensorrt-rtx-cu13==1.7.1.*"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def built_library(factory: pytest.TempPathFactory) -> Path:
    """The plugin library, built by the project's own script; one build for all workers of a run."""
    needed("nvcc")
    needed("cmake")
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "plugin-library"
    with open(shared / "plugin-library.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = out / "libpointrend_plugins.so"
        if not path.is_file():
            run(["nice", SCRIPT, out], CUDA_ARCHITECTURES="86-real", PYTHON=sys.executable)
    return path
