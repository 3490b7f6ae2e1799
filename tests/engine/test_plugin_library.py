"""The plugin library: found, loaded, version-checked; and what is said where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pointrend_deploy.bundle.folder import sha256_of
from pointrend_deploy.engine import plugin_library
from pointrend_deploy.engine.plugin_library import find_library, load_library, note_on
from pointrend_deploy.errors import DeployError
from tests.engine.rtx import built_library
from tests.plugins.compilers import needed, run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_library(tmp_path_factory)


def library_of(folder: Path, version: int | None, other: str = "") -> Path:
    """A library that says it was compiled with a version of TensorRT."""
    source = folder / "library.c"
    says = (
        "" if version is None else f"int pointrend_tensorrt_version(void) {{ return {version}; }}"
    )
    source.write_text(f"void getCreators(void) {{}} void setLoggerFinder(void) {{}} {says} {other}")
    out = folder / plugin_library.NAME
    run([needed("gcc"), "-shared", "-fPIC", source, "-o", out])
    return out


def test_the_real_one(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugin_library.VARIABLE, str(built))
    found = find_library()
    assert (found.path, found.sha256) == (built.resolve(), sha256_of(built))
    assert found.tensorrt.startswith("10.")
    assert note_on(found, "tensorrt", "10.3.0") == ""
    assert "10.14" in note_on(found, "tensorrt", "11.4.0.106")
    assert "do not reach" in note_on(found, "tensorrt_rtx", "1.7.1.116")


def test_a_build_folder_is_looked_into(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(plugin_library.VARIABLE, raising=False)
    monkeypatch.setattr(plugin_library, "candidates", lambda: (tmp_path / "none", built))
    assert find_library().path == built.resolve()
    monkeypatch.undo()
    monkeypatch.delenv(plugin_library.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "build" / "plugins" / plugin_library.NAME
    assert place in plugin_library.candidates()


def test_none_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugin_library.VARIABLE, raising=False)
    monkeypatch.setattr(plugin_library, "candidates", tuple)
    with pytest.raises(DeployError, match="is not built") as caught:
        find_library()
    assert "scripts/build_plugins.sh" in caught.value.hint


def test_the_environment_names_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(plugin_library.VARIABLE, str(tmp_path / "gone.so"))
    with pytest.raises(DeployError, match=r"gone\.so is not a file"):
        find_library()


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (0, "compiled without TensorRT"),
        (100200, r"compiled with TensorRT 10\.2\.0; 10\.3 is the oldest"),
        (None, "not a plugin library of this project"),
    ],
)
def test_one_that_will_not_do(tmp_path: Path, version: int | None, words: str) -> None:
    with pytest.raises(DeployError, match=words):
        load_library(library_of(tmp_path, version))


def test_versions_that_do(tmp_path: Path) -> None:
    assert load_library(library_of(tmp_path, 100300)).tensorrt == "10.3.0"
    assert load_library(library_of(tmp_path, 110101)).tensorrt == "11.1.1"


def test_one_that_ends_the_process_that_loads_it(tmp_path: Path) -> None:
    crash = "__attribute__((constructor)) static void crash(void) { __builtin_trap(); }"
    path = library_of(tmp_path, 100300, crash)
    with pytest.raises(DeployError, match="does not load here: it ended with -"):
        load_library(path)


def test_damaged_files(built: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.so").write_bytes(b"")
    shutil.copy(built, tmp_path / "cut.so")
    (tmp_path / "cut.so").write_bytes(built.read_bytes()[:3000])
    for name in ("empty.so", "cut.so"):
        with pytest.raises(DeployError, match=f"{name} does not load here"):
            load_library(tmp_path / name)
