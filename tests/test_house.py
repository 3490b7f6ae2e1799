"""The house rules a program can check: who imports whom, module sizes, a quick command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.repository import ROOT

PACKAGE = ROOT / "pointrend_deploy"
ROOMS = (
    ("version", "errors", "progress", "atomic", "wording", "packages", "onnx_session"),
    ("recipe",),
    ("bundle",),
    ("checkpoint",),
    ("pictures",),
    ("model",),
    ("graph",),
    ("quantize",),
    ("engine",),
    ("run",),
    ("truth",),
    ("parity",),
    ("report",),
    ("verbs",),
    ("cli",),
)
"""Bottom to top. A module imports from its own room, from its row, and from the rows before it."""
FLOOR = {room: floor for floor, row in enumerate(ROOMS) for room in row}
ENTRANCES = {"": {"model", "recipe", "run", "errors", "packages", "version"}, "__main__": {"cli"}}
"""What the package's own ``__init__`` and ``__main__`` import; nothing imports these two."""

Imports = Mapping[str, set[str]]


def module_name(path: Path) -> str:
    """``pointrend_deploy/run/open.py`` -> ``run.open``; the package's ``__init__`` -> ``""``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of_package() -> dict[str, set[str]]:
    """Modules of the package that each one imports, anywhere in its text."""
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                whole, level = node.module or "", node.level
                assert level == 0, f"{path} imports by a relative name"
                targets = [f"{whole}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            for target in targets:
                parts = target.split(".")
                if parts[0] != PACKAGE.name:
                    continue
                inner = ".".join(parts[1:])
                found[name].add(inner if inner in paths else ".".join(parts[1:-1]))
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def arrows_up(imports: Imports) -> list[str]:
    """Imports that lead from a room to one above it, or to the package's own ``__init__``."""
    wrong = []
    for name, targets in imports.items():
        for target in targets:
            if room(name) in ENTRANCES:
                fine = room(target) in ENTRANCES[room(name)]
            else:
                fine = target != "" and FLOOR[room(target)] <= FLOOR[room(name)]
            if not fine:
                wrong.append(f"{name} imports {target or PACKAGE.name}")
    return sorted(wrong)


def circle(imports: Imports) -> list[str]:
    """The modules of one import circle, those inside functions included; empty if there is none."""
    try:
        TopologicalSorter({name: targets - {name} for name, targets in imports.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_room_is_in_the_order() -> None:
    rooms = {room(module_name(path)) for path in PACKAGE.rglob("*.py")}
    assert rooms - set(ENTRANCES) == set(FLOOR)


def test_imports_go_down_only() -> None:
    assert arrows_up(imports_of_package()) == []


def test_there_is_no_import_circle() -> None:
    assert circle(imports_of_package()) == []


def test_a_planted_import_is_seen() -> None:
    imports = imports_of_package()
    assert {"graph.options"} <= imports["graph.contract"]
    for name, target in (("model.load", "graph.contract"), ("run.runner", ""), ("", "verbs.run")):
        planted = {**imports, name: imports[name] | {target}}
        assert arrows_up(planted) == [f"{name} imports {target or PACKAGE.name}"]
    planted = {**imports, "graph.options": imports["graph.options"] | {"graph.contract"}}
    assert arrows_up(planted) == []
    assert {"graph.options", "graph.contract"} <= set(circle(planted))


@pytest.mark.parametrize("place", ["bundle", "pictures", "recipe", "run", "cli", "verbs/run.py"])
def test_the_device_side_imports_no_torch(place: str) -> None:
    paths = [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).rglob("*.py"))
    modules = [f"{PACKAGE.name}.{module_name(path)}" for path in paths]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'onnx', 'onnxscript', 'matplotlib', 'polygraphy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "path",
    sorted(
        p for top in (PACKAGE, ROOT / "scripts", ROOT / "benchmarks") for p in top.rglob("*.py")
    ),
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_a_module_is_at_most_400_lines_and_has_a_name(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, pointrend_deploy.cli as cli\n"
        "sys.argv = ['pointrend-deploy', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert child.returncode == 0, child.stderr
    assert "export" in child.stdout
