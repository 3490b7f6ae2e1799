"""Packages that are missing or damaged, and the line that installs them on this machine."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pointrend_deploy import packages
from pointrend_deploy.errors import DeployError


def refusal(command: str, instead: str = "") -> DeployError:
    with pytest.raises(DeployError) as caught:
        packages.require(command, instead)
    return caught.value


def test_all_missing_packages_are_named_once(monkeypatch: Any) -> None:
    for module in ("onnx", "jinja2", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    error = refusal("compare")
    assert error.message == "compare needs torch, onnx and jinja2, which are not installed"
    assert error.hint.endswith("[export]'")
    error = refusal("report", "read parity.json")
    assert error.message == "report needs jinja2, which is not installed"
    assert error.hint.startswith("`") and error.hint.endswith("[report]'`, or read parity.json")


@pytest.mark.parametrize("package", packages.MODULES)
def test_each_package_is_missed_by_the_commands_that_need_it(
    package: str, monkeypatch: Any
) -> None:
    for module in packages.MODULES[package]:
        monkeypatch.setitem(sys.modules, module.split(".")[0], None)
        monkeypatch.setitem(sys.modules, module, None)
    needing = {name for name, need in packages.NEEDS.items() if package in need.packages}
    assert needing
    for command in needing:
        assert packages.problems(command)[package] == packages.ABSENT


def test_a_damaged_package_is_installed_again(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "polygraphy.py").write_text("raise OSError('libcudart.so.12: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "polygraphy", raising=False)
    monkeypatch.setattr(packages, "NEEDS", {"one": packages.Need("export", ("polygraphy",))})
    error = refusal("one")
    assert "polygraphy, which cannot be imported: libcudart.so.12: cannot open" in error.message
    assert error.hint.endswith(" install --force-reinstall polygraphy")


def installed_from(record: dict[str, Any] | None, monkeypatch: Any, place: Path) -> str:
    """The words of `pip install` where this package stands outside a checkout."""
    raw = None if record is None else json.dumps(record)
    monkeypatch.setattr(packages, "_CHECKOUT", place / "site-packages")
    found = SimpleNamespace(read_text=lambda name: raw)
    monkeypatch.setattr(packages, "distribution", lambda name: found)
    return packages.requirement("export")


def test_the_line_names_where_the_package_came_from(tmp_path: Path, monkeypatch: Any) -> None:
    source, wheel = tmp_path / "a source", tmp_path / "pointrend_deploy-0.1.0.whl"
    source.mkdir()
    wheel.touch()
    named = {
        "pointrend-deploy[export]": None,
        f"{source}[export]": {"url": f"file://{source}", "dir_info": {}},
        f"pointrend-deploy[export] @ file://{wheel}": {"url": f"file://{wheel}"},
        "pointrend-deploy[export] @ git+https://example.com/p.git@abc": {
            "url": "https://example.com/p.git",
            "vcs_info": {"vcs": "git", "commit_id": "abc"},
        },
        "pointrend-deploy[export] @ https://example.com/p.whl": {
            "url": "https://example.com/p.whl"
        },
    }
    for words, record in named.items():
        assert shlex.split(installed_from(record, monkeypatch, tmp_path)) == [words]
    gone = {"url": f"file://{tmp_path}/gone", "dir_info": {}}
    assert installed_from(gone, monkeypatch, tmp_path) == ""
    assert packages.install_line("export", ("onnx", "torch")).endswith(" install onnx torch")


def test_the_line_in_a_checkout(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(packages, "_CHECKOUT", tmp_path)
    assert shlex.split(packages.requirement("gpu")) == ["-e", f"{tmp_path}[gpu]"]
    monkeypatch.chdir(tmp_path)
    assert packages.requirement("gpu") == "-e '.[gpu]'"


def test_pip_is_that_of_this_python(tmp_path: Path, monkeypatch: Any) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        (folder / "pip").write_text("#!/bin/sh\n")
        (folder / "pip").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.setenv("PATH", str(own))
    assert packages.pip_install() == "pip install"
    monkeypatch.setenv("PATH", str(other))
    assert packages.pip_install() == f"{own}/python -m pip install"
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    (other / "uv").write_text("#!/bin/sh\n")
    (other / "uv").chmod(0o755)
    assert packages.pip_install() == f"uv pip install --python {own}/python"


def test_a_jetson(tmp_path: Path, monkeypatch: Any) -> None:
    from pointrend_deploy.engine import flavour

    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36\n")
    monkeypatch.setattr(packages, "_JETSON_RELEASE", release)
    for module in ("onnx", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    assert refusal("build").hint.endswith("[jetson]'")
    assert refusal("export").hint.startswith("do this on a workstation and copy the bundle")
    hint = flavour.how_to_install("tensorrt")
    assert "sudo apt install python3-libnvinfer" in hint and "pip install" not in hint
    monkeypatch.setattr(flavour.platform, "machine", lambda: "aarch64")
    assert "no package for aarch64" in flavour.how_to_install("tensorrt_rtx")
