"""The plugin library as nvcc builds it: what it needs, what it exports, what its kernels use."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.plugins.compilers import PLUGINS, SCRIPT, needed, run

ARCHITECTURES = ("sm_87", "sm_90", "sm_110")
EXPORTED = {
    *("getCreators", "setLoggerFinder"),
    *("pointrend_sample", "pointrend_uncertain", "pointrend_uncertain_workspace"),
    *("pointrend_nms", "pointrend_nms_workspace", "pointrend_roi_align"),
    "pointrend_upsample_two_best",
    *("pointrend_refine_logits", "pointrend_refine_labels", "pointrend_sample_cells"),
    "pointrend_sample_rois",
    *("pointrend_error_string", "pointrend_tensorrt_version"),
}


class Budget(NamedTuple):
    """Registers of a thread and static shared bytes of a block; none may spill or use a stack."""

    registers: int
    shared: int


# 40 registers keep 1536 threads on a multiprocessor of 65536, all that an Orin's holds.
BUDGETS = {
    "sample_kernel": Budget(64, 0),  # its loads are independent: registers are worth more there
    "sample_rois_kernel": Budget(40, 2304),
    "sample_last_kernel": Budget(40, 4352),
    "roi_align_kernel": Budget(64, 1536),  # so are these
    "group_kernel": Budget(40, 18464),
    "rank_kernel": Budget(40, 0),
    "start_kernel": Budget(40, 0),
    "histogram_kernel": Budget(40, 8192),
    "choose_bin_kernel": Budget(40, 1024),
    "count_kernel": Budget(40, 0),
    "place_kernel": Budget(40, 2048),
    "write_kernel": Budget(40, 0),
    "two_best_kernel": Budget(64, 0),  # four cells a thread and the reads of several classes
    "upsample_maps_kernel": Budget(40, 0),
    "put_logits_kernel": Budget(40, 0),
    "copy_labels_kernel": Budget(40, 0),
    "put_labels_kernel": Budget(40, 0),
}


class Use(NamedTuple):
    architecture: str
    kernel: str
    registers: int
    shared: int
    spilled: int


def uses(log: str) -> list[Use]:
    """What ptxas says of each kernel, for each architecture."""
    found = []
    for entry in log.split("Compiling entry function ")[1:]:
        head = re.match(r"'(\S+)' for '(\S+)'", entry)
        registers = re.search(r"Used (\d+) registers", entry)
        memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", entry)
        assert head and registers and memory, entry
        (name,) = [kernel for kernel in BUDGETS if kernel in head[1]]
        shared = re.search(r"(\d+) bytes smem", entry)
        spilled = int(memory[1]) + int(memory[2])
        size = int(shared[1]) if shared else 0
        found.append(Use(head[2], name, int(registers[1]), size, spilled))
    return found


def over_budget(found: list[Use]) -> list[Use]:
    return [
        use
        for use in found
        if use.spilled
        or use.registers > BUDGETS[use.kernel].registers
        or use.shared > BUDGETS[use.kernel].shared
    ]


class Built(NamedTuple):
    library: Path
    log: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built with the script, from headers of the PyPI package where the system has none."""
    needed("nvcc")
    needed("cmake")
    out = tmp_path_factory.mktemp("plugins")
    wanted = ";".join(f"{name.removeprefix('sm_')}-real" for name in ARCHITECTURES)
    environment = {"CUDA_ARCHITECTURES": wanted, "PYTHON": sys.executable, "STRICT": "ON"}
    log = run(["nice", SCRIPT, out], **environment)
    library = Path(log.splitlines()[-1])
    assert library == out / "libpointrend_plugins.so"
    return Built(library, log)


def test_kernels_keep_to_their_registers_and_shared_memory(built: Built) -> None:
    found = uses(built.log)
    assert {(use.architecture, use.kernel) for use in found} == {
        (architecture, kernel) for architecture in ARCHITECTURES for kernel in BUDGETS
    }
    assert over_budget(found) == []


def test_overlaps_are_rounded_as_in_the_reference(tmp_path: Path) -> None:
    """A product merged with a sum is rounded once less: near a threshold another box would stay."""

    def merged(source: str) -> bool:
        ptx = tmp_path / "kernels.ptx"
        options = ("-std=c++17", "-arch=sm_87", "-Iinclude", "-Isrc")
        run([needed("nvcc"), *options, "-ptx", source, "-o", ptx])
        instructions = ptx.read_text()
        assert "mul.rn.f32" in instructions
        return "fma.rn.f32" in instructions

    assert not merged("src/nms.cu")
    assert merged("src/roi_align.cu")  # its weighted sums, which are free to


def test_a_spill_and_an_excess_are_noticed() -> None:
    log = (
        "Compiling entry function '_Z12write_kernelv' for 'sm_87'\n"
        " {stack} bytes stack frame, {stack} bytes spill stores, 0 bytes spill loads\n"
        " Used {registers} registers, {shared} bytes smem"
    )
    assert over_budget(uses(log.format(stack=0, registers=40, shared=0))) == []
    for change in ({"stack": 8}, {"registers": 41}, {"shared": 4}):
        assert over_budget(uses(log.format(**{"stack": 0, "registers": 40, "shared": 0, **change})))


def test_the_library_exports_its_interface_and_nothing_else(built: Built) -> None:
    symbols = run([needed("nm"), "-D", "--defined-only", built.library])
    assert {line.split()[-1] for line in symbols.splitlines()} == EXPORTED


def test_the_library_needs_no_tensorrt_and_no_cuda_to_load(built: Built) -> None:
    """-Wl,--no-undefined at its link proves the same of every symbol."""
    dynamic = run([needed("readelf"), "-d", built.library])
    names = re.findall(r"NEEDED.*\[(\S+?)\.so", dynamic)
    assert "libstdc++" in names
    assert not [name for name in names if "nvinfer" in name or "cuda" in name]
    assert "--no-undefined" in (PLUGINS / "CMakeLists.txt").read_text()


def test_the_library_says_what_it_was_built_for_and_reports_errors(built: Built) -> None:
    library = ctypes.CDLL(str(built.library))
    library.pointrend_error_string.restype = ctypes.c_char_p
    assert library.pointrend_tensorrt_version() >= 100300
    assert library.pointrend_error_string(1) == b"invalid argument"
    assert library.pointrend_uncertain(None, None, 1, 1, 1, None, 0, None) == 1


def test_the_interface_is_plain_c() -> None:
    check = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")
    run([needed("gcc"), *check, "-x", "c", "include/pointrend_plugins.h"])


def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    needed("cmake")
    environment = {**os.environ, "NVCC": "nvcc", "TENSORRT_INCLUDE_DIR": str(tmp_path)}
    done = subprocess.run([SCRIPT, tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: no NvInferRuntime.h in TENSORRT_INCLUDE_DIR" in done.stderr
    assert "hint: " in done.stderr
    assert done.stdout == ""
