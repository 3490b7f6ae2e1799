"""What the README says to type works as it stands, and every guide is reached from it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pointrend_deploy import cli
from pointrend_deploy.version import __version__
from scripts.unpack_demo import unpack
from tests.repository import ROOT
from tests.test_documented_commands import GUIDES

README = (ROOT / "README.md").read_text()


def section(title: str, text: str = README) -> str:
    """The text below a heading, up to the next one."""
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def typed(text: str) -> list[list[str]]:
    """The commands of the indented blocks, as words."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("    ")]


def extras_asked(words: list[str]) -> set[str]:
    """The extras of this package in the words of a pip command."""
    found = [re.search(r"\[([\w,]+)\]$", word) for word in words]
    return {name for each in found if each for name in each[1].split(",")}


def links(path: Path) -> list[Path]:
    """The files of this repository that a guide links to or shows."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    return [path.parent / link for link in found if "://" not in link]


@pytest.mark.slow
def test_install_export_run_and_python_work_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack()
    for name in ("export", "demo"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    install, export, run, *_ = typed(section("Install, export, run"))
    assert install[:2] == ["pip", "install"]
    for command in (export, run):
        assert command[0] == "pointrend-deploy"
        done = CliRunner().invoke(cli.app, command[1:])
        assert done.exit_code == 0, (command, done.output)
    pictures = sorted(path.stem for path in Path("demo/pictures").iterdir())
    for folder in ("labels", "overlays"):
        assert sorted(path.stem for path in Path("results", folder).iterdir()) == pictures
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    shown = np.asarray(names["labels"])
    assert shown.dtype == np.uint8
    assert shown.shape == np.asarray(names["image"]).shape[:2]
    assert (shown == np.asarray(Image.open("results/labels/coffee.png"))).all()
    assert "coarse" in names["stages"]  # type: ignore[operator]


def test_pip_is_asked_for_extras_and_a_wheel_that_there_are() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    known = set(
        re.findall(r"^(\w+) = \[", project.split("[project.optional-dependencies]")[1], re.M)
    )
    pips = [words for words in typed(README) if words[:1] == ["pip"]]
    assert [words[1] for words in pips] == ["install", "wheel", "install"]
    for words in pips:
        assert extras_asked(words) <= known
    wheel = f"dist/pointrend_deploy-{__version__}-py3-none-any.whl[onnx]"
    assert wheel in pips[2]
    assert extras_asked(["pip", "a[nowhere,onnx]"]) == {"nowhere", "onnx"}


def test_every_guide_is_linked_from_the_readme() -> None:
    reached = {path.resolve() for path in links(ROOT / "README.md")}
    guides = {path.resolve() for path in GUIDES} - {ROOT / "README.md"}
    assert guides - reached == set()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_guide_lead_somewhere(guide: Path) -> None:
    assert [str(path) for path in links(guide) if not path.exists()] == []


def test_no_row_of_the_readme_is_missing_a_cell() -> None:
    width = None
    for line in README.splitlines():
        cells = line.count("|") if line.startswith("|") else None
        assert cells is None or width in (None, cells), line
        width = cells
