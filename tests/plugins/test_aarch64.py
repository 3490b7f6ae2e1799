"""The plugin library compiled for a Jetson's processor on another one, and loaded by an emulator.

Needs Debian's g++-aarch64-linux-gnu and qemu-user, and CUDA 13 (whose static runtime for aarch64
PyPI has). Where one of them is missing, these tests are skipped, in CI too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.compilers import PLUGINS, SCRIPT, run

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
LIBRARIES = "/usr/aarch64-linux-gnu"


@pytest.fixture(scope="module")
def static_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libcudart_static.a for aarch64, of the version of nvcc."""
    for program in ("nvcc", COMPILER, EMULATOR):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    release = re.search(r"release (13\.\d+)", run(["nvcc", "--version"]))
    if release is None:
        pytest.skip("PyPI has the static CUDA runtime for aarch64 from CUDA 13 on")
    folder = tmp_path_factory.mktemp("runtime")
    wanted = ("--no-deps", "--only-binary=:all:", "--platform", "manylinux2014_aarch64")
    name = f"nvidia-cuda-runtime=={release[1]}.*"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", *wanted, "--dest", folder, name]
    if subprocess.run(list(map(str, pip)), capture_output=True, timeout=300).returncode != 0:
        pytest.skip(f"{name} for aarch64 could not be downloaded")
    (wheel,) = folder.glob("*.whl")
    run([sys.executable, "-m", "zipfile", "-e", wheel, folder])
    (library,) = folder.rglob("libcudart_static.a")
    return library


@pytest.fixture(scope="module")
def library(static_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    headers = run([SCRIPT, "--headers"], PYTHON=sys.executable).splitlines()[-1]
    path = tmp_path_factory.mktemp("aarch64") / "libpointrend_plugins.so"
    sources = sorted(PLUGINS.glob("src/*.cu")) + sorted(PLUGINS.glob("src/*.cpp"))
    # Device headers are the same for every processor: those of the machine at hand serve.
    cross = ("-ccbin", COMPILER, "--target-directory", "x86_64-linux", "-arch=sm_87")
    options = ("-std=c++17", "-Xcompiler=-fPIC,-fvisibility=hidden", "-shared", "-cudart=none")
    includes = ("-Iinclude", "-Isrc", "-isystem", headers)
    link = ("-Xlinker=--no-undefined", "-Xlinker=--exclude-libs,ALL", "-ldl", "-lpthread", "-lrt")
    command = ["nvcc", *cross, *options, *includes, *sources, static_runtime, *link]
    run([*command, "-o", path])
    return path


def loaded(library: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    program = folder / "load_library"
    run([COMPILER, "-std=c++17", "-Wall", "-Wextra", "tests/load_library.cpp", "-o", program])
    command = [EMULATOR, "-L", LIBRARIES, str(program), str(library)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_library_loads_on_aarch64(library: Path, tmp_path: Path) -> None:
    done = loaded(library, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "11 ops; error 1: invalid argument; workspace: 8704\n"


@pytest.mark.parametrize(
    ("compiler", "why"),
    [(COMPILER, "undefined symbol"), ("g++", "cannot open shared object file")],
)
def test_a_library_of_something_else_is_noticed(
    static_runtime: Path, tmp_path: Path, compiler: str, why: str
) -> None:
    """An empty one, and an empty one of this machine's processor."""
    other = tmp_path / "other.so"
    run([compiler, "-shared", "-fPIC", "-x", "c++", "/dev/null", "-o", other])
    done = loaded(other, tmp_path)
    assert done.returncode == 1 and why in done.stdout
