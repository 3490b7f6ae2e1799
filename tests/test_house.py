"""The house rules a program can check: who imports whom, module sizes, a quick command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT

TOPS = ("pointrend_deploy", "scripts", "benchmarks")
PACKAGE = ROOT / "pointrend_deploy"
ORDER = ["model", "graph", "quantize", "engine", "run", "parity", "verbs", "cli"]
"""Left to right: a stage imports only itself and what stands before it."""


def stage_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "pointrend_deploy" else None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_a_stage_imports_only_what_stands_left_of_it(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own not in ORDER:
        beyond = {stage_of(name) for name in imports(path)} & set(ORDER)
        allowed = {"__init__.py": {"model", "run", "verbs"}, "__main__.py": {"cli"}}
        assert beyond <= allowed.get(path.name, set())
        return
    for name in imports(path):
        stage = stage_of(name)
        if stage in ORDER:
            assert ORDER.index(stage) <= ORDER.index(own), f"{own} imports {name}"


def test_the_order_is_enforced_on_something() -> None:
    crossing = {
        (path.relative_to(PACKAGE).parts[0], stage_of(name))
        for path in PACKAGE.rglob("*.py")
        for name in imports(path)
    }
    assert ("verbs", "graph") in crossing
    assert ("parity", "run") in crossing


@pytest.mark.parametrize(
    "stage", ["run", "bundle.py", "recipe.py", "cli/__init__.py", "verbs/run.py"]
)
def test_the_device_side_imports_no_torch(stage: str) -> None:
    paths = [PACKAGE / stage] if stage.endswith(".py") else sorted((PACKAGE / stage).glob("*.py"))
    modules = [
        "pointrend_deploy." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in paths
        if path.name != "__init__.py"
    ]
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
def test_a_module_is_at_most_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
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
