"""Every verb without the packages that it needs: `error:`, `hint:`, no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pointrend_deploy.packages import MODULES, NEEDS
from tests.conftest import Exporter
from tests.fixtures.tiny_bundle import write_tiny_bundle
from tests.repository import ROOT

HIDDEN = """
import sys
hidden = sys.argv.pop(1).split(",")
sys.modules.update({name: None for name in hidden})
from pointrend_deploy.cli import main
main()
"""
"""A module that is None in `sys.modules` is not found, as if it were not installed."""
OPTIONAL = sorted({name.split(".")[0] for names in MODULES.values() for name in names})
EXPORT = "export demo_semantic --weights none.pth --out {out} --size 64"
VERBS = {  # with the extra that its hint names, where nothing but the device install is there
    EXPORT: "[export]'",
    "calibrate {bundle} --images {bundle}": "[export]'",
    "quantize {bundle} --precision fp16": "[export]'",
    "build {bundle}": "[gpu]'",
    "build {bundle} --explain": " install onnx",
    "build {bundle} --target rtx:86": "[rtx]'",
    "run {bundle} {bundle} --out {out}": "[onnx]'",
    "run {bundle} {bundle} --out {out} --runner onnx": "[onnx]'",
    "run {bundle} {bundle} --out {out} --runner torch": "[torch]'",
    "compare {bundle} --images {bundle}": "[export]'",
    "compare {bundle} --images {bundle} --precision all": "[export]'",
    "report {bundle}": "[report]'",
}


def hiding(modules: list[str], arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDDEN, ",".join(modules), *arguments.split()],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.mark.parametrize("verb", VERBS)
def test_a_device_install_says_what_a_verb_needs(verb: str, bundle: Path, tmp_path: Path) -> None:
    done = hiding(OPTIONAL, verb.format(bundle=bundle, out=tmp_path / "out"))
    assert done.returncode == 1
    assert not done.stdout
    error, hint = done.stderr.splitlines()[-2:]
    assert (error.startswith("error: ") and "not installed" in error) or "is installed" in error
    assert hint.startswith("hint: ") and " install " in hint and VERBS[verb] in hint
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("report", "report {bundle} --out {out}"),
        ("calibrate", "calibrate {bundle} --images {pictures}"),
        ("build --explain", "build {bundle} --explain"),
        ("run --runner onnx", "run {bundle} {pictures} --out {out}"),
    ],
)
def test_a_verb_works_with_its_packages_alone(
    command: str, arguments: str, exported: Exporter, pictures: Path, tmp_path: Path
) -> None:
    """What `doctor` answers yes to does its work."""
    bundle = shutil.copytree(exported(), tmp_path / "bundle")
    own = {name.split(".")[0] for each in NEEDS[command].packages for name in MODULES[each]}
    others = [module for module in OPTIONAL if module not in own]
    words = arguments.format(bundle=bundle, pictures=pictures, out=tmp_path / "out")
    done = hiding(others, words)
    assert done.returncode == 0, done.stderr


def test_what_needs_no_package_works_without_all() -> None:
    assert "demo_semantic" in hiding(OPTIONAL, "recipes").stdout
    shown = hiding(OPTIONAL, "recipes --show my_model").stdout
    assert shown == (ROOT / "export" / "my_model.toml").read_text()
    done = hiding([*OPTIONAL, "tensorrt", "tensorrt_rtx"], "doctor")
    assert done.returncode == 0, done.stderr
    assert "  report " in done.stdout and "no: jinja2, which is not installed" in done.stdout


def test_the_python_functions_say_it_too() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pointrend_deploy as p\n"
        "assert 'load_model' in dir(p)\n"
        "try: p.load_model\n"
        "except p.DeployError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("load_model needs torch, which is not installed\nhint: ")
