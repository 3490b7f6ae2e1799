"""The plugin classes, called as TensorRT calls them, with kernels under the emulator."""

from __future__ import annotations

import ctypes
import sys

import pytest

from tests.plugins.compilers import PLUGIN_SOURCES, SCRIPT, compile_for_emulator, run


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    headers = run([SCRIPT, "--headers"], PYTHON=sys.executable).splitlines()[-1]
    path = tmp_path_factory.mktemp("plugins") / "libplugins_under_test.so"
    options = ("-O1", "-shared", "-fPIC", "-isystem", headers, "-Wl,--no-undefined")
    source = "plugins_library.cpp"
    checks = [
        f"tests/{op}_plugin_checks.cpp"
        for op in ("roi_align", "nms", "refine", "sample_cells", "sample_rois", "upsample")
    ]
    more = (*PLUGIN_SOURCES, *checks)
    compile_for_emulator(path, source, *options, more=more)
    return ctypes.CDLL(str(path))


def test_plugins_answer_what_tensorrt_asks(
    library: ctypes.CDLL, capfd: pytest.CaptureFixture[str]
) -> None:
    assert library.check_plugins(0) == 0, capfd.readouterr().err


def test_a_wrong_answer_is_counted(library: ctypes.CDLL, capfd: pytest.CaptureFixture[str]) -> None:
    assert library.check_plugins(1) == 1
    assert "plant == 0" in capfd.readouterr().err
