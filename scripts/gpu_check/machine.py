"""The facts of this machine: GPU, driver, CUDA, torch, builders of engines."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pointrend_deploy.engine.flavour import installed
from pointrend_deploy.engine.targets import Gpu, first_gpu

Facts = dict[str, str | int | None]


def facts() -> tuple[Gpu | None, Facts]:
    """Find the first GPU, and everything that a figure depends on, as JSON-ready values."""
    gpu = first_gpu()
    builders = {flavour.module: flavour.version for flavour in installed()}
    found: Facts = {
        "gpu": gpu.name if gpu else None,
        "capability": gpu.capability if gpu else None,
        "driver": _driver(),
        "nvcc": _nvcc(),
        "torch": _package("torch"),
        "torch_cuda": _torch_cuda(),
        "tensorrt": builders.get("tensorrt"),
        "tensorrt_rtx": builders.get("tensorrt_rtx"),
        "python": platform.python_version(),
        "platform": platform.machine(),
        "commit": _said(["git", "rev-parse", "HEAD"], r"([0-9a-f]{40})"),
    }
    return gpu, found


def _driver() -> str | None:
    """The driver's version, from the kernel module or from nvidia-smi."""
    module = Path("/proc/driver/nvidia/version")
    if module.is_file():
        found = re.search(r"\s(\d+\.\d+[.\d]*)\s", module.read_text())
        if found:
            return found[1]
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return _said(asked, r"([\d.]+)")


def _nvcc() -> str | None:
    path = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    return _said([path, "--version"], r"V([\d.]+)")


def _torch_cuda() -> str | None:
    """The CUDA that torch was built for; None for a CPU build, or without torch."""
    try:
        import torch
    except ImportError:
        return None
    cuda: str | None = torch.version.cuda
    return cuda


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _said(command: list[str], pattern: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(pattern, done.stdout) if done.returncode == 0 else None
    return found[1] if found else None
