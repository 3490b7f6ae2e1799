"""The kernels against plain loops, under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plugins.compilers import compile_for_emulator, run


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sanitizers = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    options = ("-O1", "-g", "-fno-omit-frame-pointer", *sanitizers)
    path = tmp_path_factory.mktemp("sanitized") / "check_kernels"
    more = ["tests/check_instance_kernels.cpp", "tests/check_upsample_kernels.cpp"]
    return compile_for_emulator(path, "check_kernels.cpp", *options, more=more)


def test_kernels_touch_nothing_beside_their_buffers(program: Path) -> None:
    # Leaks are looked for by walking stacks, and the fibers' are unknown to the sanitizer.
    assert "all agree" in run([program], ASAN_OPTIONS="detect_leaks=0")


def test_a_write_beside_a_buffer_is_noticed(program: Path) -> None:
    done = subprocess.run([program, "beyond"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
