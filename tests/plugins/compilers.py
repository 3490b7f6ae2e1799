"""Compilers that the plugin tests need, and how they compile for the CPU emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent.parent.parent / "plugins"
SCRIPT = PLUGINS.parent / "scripts" / "build_plugins.sh"
PLUGIN_SOURCES = (
    *("src/library.cpp", "src/log.cpp", "src/nms_plugin.cpp", "src/refine_plugin.cpp"),
    *("src/roi_align_plugin.cpp", "src/sample_cells_plugin.cpp", "src/sample_plugin.cpp"),
    *("src/sample_rois_plugin.cpp", "src/uncertain_plugin.cpp", "src/upsample_plugin.cpp"),
)
SOURCES = (
    *("src/nms.cu", "src/roi_align.cu", "src/sample.cu", "src/sample_rois.cu", "src/uncertain.cu"),
    *("src/refine.cu", "src/upsample.cu"),
    "src/c_interface.cpp",
)
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")


def needed(program: str) -> str:
    """Path of a program. Where it is missing the test is skipped, and fails in CI."""
    path = shutil.which(program)
    if path is None:
        reason = f"{program} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(command: Sequence[str | Path], **environment: str) -> str:
    """Run a command in plugins/ and return what it wrote; a failure shows all of it."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=PLUGINS,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    if done.returncode != 0:
        pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def compile_for_emulator(out: Path, main: str, *options: str, more: Sequence[str] = ()) -> Path:
    """Compile the kernels, their C interface, ``more`` and a source of plugins/tests with g++."""
    includes = ("-Iinclude", "-Isrc", "-Itests", "-Itests/emulated")
    sources = ("-x", "c++", *SOURCES, *more, f"tests/{main}")
    standard = ("-std=c++17", "-U_FORTIFY_SOURCE", *WARNINGS, *includes)
    run([needed("g++"), *standard, *options, *sources, "-o", out])
    return out
