"""The kernels compiled for this machine's GPU. Without one every test here is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from scripts.gpu_check.launchers import Launchers
from tests.repository import ROOT

SCRIPT = ROOT / "scripts" / "build_plugins.sh"


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU, or a torch without CUDA")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def launchers(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Launchers:
    """The library that POINTREND_KERNELS names, or one built here for this GPU."""
    named = os.environ.get("POINTREND_KERNELS")
    if named:
        return Launchers(Path(named))
    for program in ("nvcc", "cmake"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, and POINTREND_KERNELS names no library")
    major, minor = torch.cuda.get_device_capability(device)
    out = tmp_path_factory.mktemp("kernels")
    done = subprocess.run(
        [SCRIPT, "--kernels", out],
        env={**os.environ, "CUDA_ARCHITECTURES": f"{major}{minor}-real"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Launchers(Path(done.stdout.splitlines()[-1]))
