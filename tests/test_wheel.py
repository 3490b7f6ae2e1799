"""The wheel: what a user installs has the recipes, the templates of reports and the types."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from pointrend_deploy.packages import MODULES, NEEDS
from pointrend_deploy.recipe.files import recipe_names
from tests.repository import ROOT

PROJECT = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling comes with the extra dev")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    return file


def test_the_recipes_are_in_the_wheel_and_found_there_by_name(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    site = tmp_path / "site"
    shipped = site / "pointrend_deploy" / "recipe" / "shipped"
    for path in (ROOT / "export").glob("*.toml"):
        assert (shipped / path.name).read_bytes() == path.read_bytes()
    assert not (site / "export").exists()
    assert (site / "pointrend_deploy" / "py.typed").is_file()
    code = (
        "import pointrend_deploy as p, pointrend_deploy.recipe.files as f\n"
        f"assert p.__file__.startswith({str(site)!r}), p.__file__\n"
        "assert str(f.recipes_folder()).endswith('shipped')\n"
        "print(*f.recipe_names())\n"
        "assert p.load_recipe('my_model').name == 'my_model'"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, done.stderr
    assert tuple(done.stdout.split()) == recipe_names()


def brought(extra: str) -> set[str]:
    """Packages that an extra installs, those of extras it names included."""
    found: set[str] = set()
    for line in EXTRAS[extra]:
        if line.startswith("pointrend-deploy["):
            for inner in line.partition("[")[2].rstrip("]").split(","):
                found |= brought(inner)
        else:
            found.add(line.split(";")[0].split("=")[0].split(">")[0].split("<")[0].strip())
    return found


@pytest.mark.parametrize("command", NEEDS)
def test_the_extra_of_a_hint_brings_all_that_is_missing(command: str) -> None:
    if NEEDS[command].extra:  # else the hint names the packages themselves
        assert set(NEEDS[command].packages) <= brought(NEEDS[command].extra)
    assert set(NEEDS[command].packages) <= set(MODULES)


def test_a_jetson_gets_what_a_gpu_machine_gets() -> None:
    assert brought("gpu") <= brought("jetson")


def test_the_extras_stand_in_the_guide() -> None:
    guide = (ROOT / "docs" / "install.md").read_text()
    for extra in EXTRAS:
        assert f"| `{extra}` |" in guide, extra
