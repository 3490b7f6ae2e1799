"""`doctor` says what the verbs themselves find: it and `build` agree on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import typer

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import RunnerName
from pointrend_deploy.cli import app
from pointrend_deploy.engine import flavour, machine, plugin_library, targets
from pointrend_deploy.engine.flavour import Flavour
from pointrend_deploy.engine.plugin_library import PluginLibrary
from pointrend_deploy.engine.targets import Gpu
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.backends import trt, trt_engine
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.verbs import build, doctor
from pointrend_deploy.verbs.abilities import Ability, abilities
from pointrend_deploy.verbs.build import BuildOptions, build_bundle, explain
from tests.conftest import Exporter
from tests.fixtures.tiny_bundle import write_tiny_bundle

FULL, RTX = Flavour("tensorrt", "10.3.0"), Flavour("tensorrt_rtx", "1.7.1.116")
OLD = Flavour("tensorrt", "8.6.2")
MACHINES: dict[str, tuple[tuple[Flavour, ...], Gpu | None, bool, bool]] = {
    # builders, GPU, whether the builders can be imported, whether the plugin library is there
    "nothing": ((), None, True, False),
    "library alone": ((), None, True, True),
    "GPU alone": ((), Gpu("RTX", 86), True, False),
    "RTX without a GPU": ((RTX,), None, True, False),
    "RTX and library without a GPU": ((RTX,), None, True, True),
    "TensorRT without a GPU": ((FULL,), None, True, True),
    "Jetson without the library": ((FULL,), Gpu("Orin", 87), True, False),
    "Jetson": ((FULL,), Gpu("Orin", 87), True, True),
    "Jetson without cuda-python": ((FULL,), Gpu("Orin", 87), True, True),
    "RTX on an H100": ((RTX,), Gpu("H100", 90), True, True),
    "TensorRT that is too old": ((OLD,), Gpu("Orin", 87), True, True),
    "TensorRT that is damaged": ((FULL,), Gpu("Orin", 87), False, True),
}
WITH_CUDA_PYTHON = ("Jetson", "Jetson without the library")
TARGETS = [
    ("this", "plugin", "build --target this"),
    ("this", "native", "build --target this --ops native"),
    ("rtx:86", "plugin", "build --target rtx:86"),
    ("rtx:86", "native", "build --target rtx:86 --ops native"),
]


class BegunError(Exception):
    """The work of a build began."""


@pytest.fixture(params=MACHINES)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine, as the checks of `doctor`, `build` and the runner see it."""
    builders, gpu, imports, library = MACHINES[request.param]

    def find() -> PluginLibrary:
        if not library:
            raise DeployError("the plugin library is not built", plugin_library.HOW_TO_BUILD)
        return PluginLibrary(Path("plugins.so"), "0" * 64, "10.3.0")

    def import_it(module: str) -> None:
        if not imports:
            raise DeployError(f"{module} cannot be imported: no libnvinfer.so", "install it again")

    if request.param in WITH_CUDA_PYTHON:
        name = "cuda.bindings.runtime"
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module in (targets, flavour, machine, trt, doctor):
        monkeypatch.setattr(module, "installed", lambda: builders)
    for module in (targets, machine, trt, doctor):
        monkeypatch.setattr(module, "first_gpu", lambda: gpu)
    for module in (machine, trt, doctor):
        monkeypatch.setattr(module, "find_library", find)
        monkeypatch.setattr(module, "check_import", import_it)

    def begin(*_: Any, **__: Any) -> None:
        raise BegunError

    monkeypatch.setattr(build, "build_engine", begin)
    return str(request.param)


def outcome(work: Callable[[], object]) -> tuple[bool, str]:
    """Whether work begins, and what is said where it does not."""
    try:
        work()
    except BegunError:
        return True, ""
    except DeployError as error:
        return False, error.message
    raise AssertionError("neither began nor refused")


def test_doctor_and_build_agree(here: str, exported: Exporter, tmp_path: Path) -> None:
    found = {ability.verb: ability for ability in abilities()}
    for target, ops, verb in TARGETS:
        options = BuildOptions(target=target, ops=ops)  # type: ignore[arg-type]
        begins, reason = outcome(lambda options=options: build_bundle(exported(), options))
        assert (found[verb].able, found[verb].reason) == (begins, reason), (here, verb)
        assert found[verb].able or found[verb].hint
    assert found["build --explain"].able
    for target in ("this", "rtx:86"):
        line = explain(exported(), BuildOptions(target=target)).splitlines()[
            -1 - (target != "this")
        ]
        assert line.startswith(("trtexec --onnx=", "tensorrt_rtx --onnx=")), line


def test_some_machines_can_and_some_cannot(here: str) -> None:
    able = {ability.verb for ability in abilities() if ability.able}
    builds = {verb for _, _, verb in TARGETS} & able
    expected = {
        "RTX without a GPU": {"build --target rtx:86 --ops native"},
        "RTX and library without a GPU": {
            "build --target rtx:86",
            "build --target rtx:86 --ops native",
        },
        "RTX on an H100": {"build --target rtx:86", "build --target rtx:86 --ops native"},
        "Jetson without the library": {"build --target this --ops native"},
        "Jetson": {"build --target this", "build --target this --ops native"},
    }
    assert builds == expected.get(here, set())


def test_a_runner_without_its_engine_says_what_doctor_says(here: str, tmp_path: Path) -> None:
    builders, _, _, _ = MACHINES[here]
    found = {ability.verb: ability for ability in abilities()}
    with pytest.raises(DeployError) as caught:
        open_runner(Bundle.open(write_tiny_bundle(tmp_path / "b")), "tensorrt")
    if not builders:
        assert caught.value.message == found["run --runner tensorrt"].reason
    assert found["run --runner tensorrt"].able == (here == "Jetson")


def test_every_verb_and_runner_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    verbs = [ability.verb for ability in abilities()]
    for verb in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert any(row.split(" --")[0].split(",")[0] == verb for row in verbs), verb
    for runner in get_args(RunnerName):
        assert ("run" if runner == "auto" else f"run --runner {runner}") in verbs
    assert len(set(verbs)) == len(verbs)


def test_missing_packages_and_their_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    rows = {ability.verb: ability for ability in abilities()}
    assert rows["report"] == Ability(
        "report",
        False,
        ("jinja2",),
        "report needs jinja2, which is not installed",
        rows["report"].hint,
    )
    assert rows["report"].hint.endswith("[report]'")
    assert rows["compare"].missing == ("jinja2",) and rows["compare"].hint.endswith("[export]'")
    assert rows["quantize"].able
    text = doctor.examine().summary()
    assert "no: jinja2, which is not installed\n" in text
    assert f"  report:\n      {rows['report'].hint}" in text


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("this", "build needs onnx and TensorRT, which are not installed", "[gpu]' tensorrt`"),
        ("rtx:86", "build --target rtx needs onnx and TensorRT-RTX, which are", "[rtx]'"),
    ],
)
@pytest.mark.parametrize("jetson", [False, True])
def test_packages_and_builder_are_missed_at_once(
    target: str, message: str, hint: str, jetson: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for module in (machine, targets, flavour):
        monkeypatch.setattr(module, "installed", lambda: ())
    monkeypatch.setattr(flavour, "on_jetson", lambda: jetson)
    monkeypatch.setattr(flavour.platform, "machine", lambda: "aarch64" if jetson else "x86_64")
    with pytest.raises(DeployError) as caught:
        machine.check_machine(target, "native")
    assert caught.value.message.startswith(message)
    if not jetson:
        assert hint in caught.value.hint
    elif target == "this":
        assert "[jetson]'`, and `sudo apt install python3-libnvinfer`" in caught.value.hint
    else:
        assert "no package for aarch64" in caught.value.hint
    rows = {ability.verb: ability for ability in abilities()}
    assert rows[f"build --target {target} --ops native"].reason == caught.value.message
    assert rows["build --explain"].hint.endswith(" install onnx")


def test_an_h100_is_no_gpu_for_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (trt, doctor):
        monkeypatch.setattr(module, "installed", lambda: (RTX,))
        monkeypatch.setattr(module, "first_gpu", lambda: Gpu("H100", 90))
        monkeypatch.setattr(module, "check_import", lambda module: None)
    rows = {ability.verb: ability for ability in abilities()}
    assert "compute capability 9.0" in rows["run --runner tensorrt"].reason
    (line,) = doctor.examine().builders
    assert line.endswith("builds for rtx:75,80,86,89,120,121 without a GPU")
    monkeypatch.setattr(doctor, "first_gpu", lambda: Gpu("RTX", 86))
    (line,) = doctor.examine().builders
    assert "builds for the GPU of this machine or rtx:75" in line


def test_a_jetson_with_everything_runs_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt, "installed", lambda: (FULL,))
    monkeypatch.setattr(trt, "first_gpu", lambda: Gpu("Orin", 87))
    monkeypatch.setattr(trt, "check_import", lambda module: None)
    monkeypatch.setattr(trt, "find_library", lambda: None)
    monkeypatch.setattr(trt_engine, "require", lambda command: None)
    monkeypatch.setattr(trt, "cuda_runtime", lambda: object())
    rows = {ability.verb: ability for ability in abilities()}
    assert rows["run --runner tensorrt"].able


def test_a_damaged_builder_is_found_without_ending_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("import os\nos.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeployError, match="tensorrt cannot be imported: it ended with -6"):
        machine.check_import("tensorrt")
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: not found')")
    with pytest.raises(DeployError, match=r"imported: libnvinfer\.so\.10: not found"):
        machine.check_import("tensorrt")
    (tmp_path / "tensorrt.py").write_text("")
    machine.check_import("tensorrt")
