"""The kernels compiled for the CPU emulator, once for all modules of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.plugins.compilers import compile_for_emulator
from tests.plugins.emulated import EmulatedKernels


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> EmulatedKernels:
    path = tmp_path_factory.mktemp("emulated") / "libemulated.so"
    options = ("-O2", "-shared", "-fPIC")
    return EmulatedKernels(compile_for_emulator(path, "emulated_library.cpp", *options))


@pytest.fixture(params=["forwards", "backwards"])
def kernels(library: EmulatedKernels, request: pytest.FixtureRequest) -> Iterator[EmulatedKernels]:
    """With blocks, warps and lanes in either order."""
    library.backwards(request.param == "backwards")
    yield library
    library.backwards(False)
