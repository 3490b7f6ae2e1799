"""The device side on the Pythons devices have: 3.10 (JetPack 6) and 3.13.

Each gets a virtual environment of its own with nothing but the device install and ONNX Runtime (no
torch, no onnx), under ``build/``, and must find the labels that this interpreter finds. Where an
interpreter or its packages cannot be had the test is skipped; in CI that is a failure.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.open import open_runner
from tests.conftest import Exporter
from tests.fixtures.tiny_bundle import colour_picture, write_tiny_bundle
from tests.fixtures.tiny_instances import bright_picture, write_things_bundle
from tests.repository import ROOT
from tests.run.device_side import DEVICE_SIDE, PACKAGE

PACKAGES = ("msgspec", "numpy", "onnxruntime", "pillow", "rich", "typer")
TODAY = {name: version(name) for name in PACKAGES}
PYTHONS = {  # the last releases that 3.10 gets, and today's
    "3.10": {
        **TODAY,
        "numpy": "2.2.6",
        "onnxruntime": "1.23.2",
        "pillow": "12.3.0",
        "tomli": "2.4.1",
        "typer": "0.29.1",
    },
    "3.13": TODAY,
}
RUN = """
import json, sys
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.open import open_runner
bundle, pictures, out = sys.argv[1:]
results = run_pictures(open_runner(bundle), pictures, out)
loaded = [n for n in ("torch", "onnx", "rich", "typer") if n in sys.modules]
python = sys.version_info[:2]
print(json.dumps({"python": python, "skipped": len(results.skipped), "loaded": loaded}))
"""


def cannot(reason: str) -> NoReturn:
    """Skip; in CI, where the interpreters are part of the promise, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (in CI this may not be skipped)")
    pytest.skip(reason)


def find_python(wanted: str) -> Path:
    """An interpreter of that version: on PATH, or among pyenv's."""
    candidates = [shutil.which(f"python{wanted}")]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
        folders = sorted(Path(root, "versions").glob(f"{wanted}.*"), reverse=True)
        candidates += [str(folder / "bin" / "python") for folder in folders]
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        said = subprocess.run([candidate, "-c", ask], capture_output=True, text=True)
        if said.returncode == 0 and said.stdout.strip() == wanted:
            return Path(candidate)
    cannot(f"no Python {wanted} on PATH or in pyenv")


def device_python(wanted: str) -> Path:
    """The interpreter of an environment with the device's packages, made once and kept."""
    pins = [f"{name}=={pin}" for name, pin in sorted(PYTHONS[wanted].items())]
    key = hashlib.sha256(" ".join(pins).encode()).hexdigest()[:8]
    folder = ROOT / "build" / "device-python" / f"{wanted}-{key}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    made = subprocess.run(
        [str(find_python(wanted)), "-m", "venv", str(folder)], capture_output=True, text=True
    )
    if made.returncode != 0:
        cannot(f"Python {wanted} makes no virtual environment: {made.stderr.strip()}")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins]
    got = subprocess.run(install, capture_output=True, text=True)
    if got.returncode != 0:
        cannot(f"packages for Python {wanted} could not be installed: {got.stderr.strip()[-300:]}")
    ready.touch()
    return python


@pytest.mark.parametrize("path", DEVICE_SIDE, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_syntax_is_python_3_10(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 10))


def test_the_syntax_check_sees_newer_syntax() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("try: pass\nexcept* ValueError: pass", feature_version=(3, 10))


def run_there(python: Path, bundle: Path, pictures: Path, out: Path) -> object:
    """Run a bundle in that interpreter, warnings being errors; what ``RUN`` printed."""
    done = subprocess.run(
        [python, "-W", "error", "-c", RUN, bundle, pictures, out],
        capture_output=True,
        text=True,
        cwd=out.parent,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", sorted(PYTHONS))
def test_a_bundle_runs_there_as_it_runs_here(tmp_path: Path, wanted: str) -> None:
    python = device_python(wanted)
    options = {"outputs": ("labels", "logits"), "batch": 2}
    bundle = write_tiny_bundle(tmp_path / "bundle", **options)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed, (height, width) in enumerate([(32, 48), (77, 50), (1, 30)]):
        Image.fromarray(colour_picture(height, width, seed)).save(pictures / f"{seed}.png")
    (pictures / "bad.png").write_bytes(b"no picture")

    major, minor = wanted.split(".")
    said = {"python": [int(major), int(minor)], "skipped": 1, "loaded": []}
    assert run_there(python, bundle, pictures, tmp_path / "there") == said

    run_pictures(open_runner(bundle, "onnx"), pictures, tmp_path / "here")
    for seed in range(3):
        here, there = (
            np.asarray(Image.open(tmp_path / side / "labels" / f"{seed}.png"))
            for side in ("here", "there")
        )
        assert np.array_equal(here, there)


def command_line(python: Path, *arguments: object) -> str:
    """What `pointrend-deploy` prints in that interpreter."""
    done = subprocess.run(
        [str(python), "-m", "pointrend_deploy", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("wanted", sorted(PYTHONS))
def test_the_command_line_and_an_exported_bundle_there(
    exported: Exporter, pictures: Path, tmp_path: Path, wanted: str
) -> None:
    """An exported graph has custom nodes with bodies, which ONNX Runtime of old must read too."""
    python = device_python(wanted)
    assert "demo_semantic" in command_line(python, "recipes")
    rows = json.loads(command_line(python, "doctor", "--json"))["abilities"]
    able = {row["verb"] for row in rows if row["able"]}
    assert {"run", "run --runner onnx", "recipes"} <= able
    assert not {"export", "report", "build --explain", "run --runner torch"} & able

    command_line(python, "run", exported(), pictures, "--out", tmp_path / "there")
    run_pictures(open_runner(exported(), "onnx"), pictures, tmp_path / "here")
    for picture in pictures.iterdir():
        here, there = (
            np.asarray(Image.open(tmp_path / side / "labels" / f"{picture.stem}.png"))
            for side in ("here", "there")
        )
        assert here.shape == there.shape
        assert (here == there).mean() > 0.99  # two versions of ONNX Runtime round differently


@pytest.mark.slow
@pytest.mark.parametrize("wanted", sorted(PYTHONS))
def test_an_instance_bundle_runs_there_as_it_runs_here(tmp_path: Path, wanted: str) -> None:
    python = device_python(wanted)
    bundle = write_things_bundle(tmp_path / "bundle", batch=2, layout="split")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed, (height, width) in enumerate([(32, 64), (277, 550), (60, 120)]):
        picture = bright_picture(height, width, range(3 * (seed % 2), 4), seed)
        Image.fromarray(picture).save(pictures / f"{seed}.png")

    major, minor = wanted.split(".")
    said = {"python": [int(major), int(minor)], "skipped": 0, "loaded": []}
    assert run_there(python, bundle, pictures, tmp_path / "there") == said

    run_pictures(open_runner(bundle, "onnx"), pictures, tmp_path / "here")
    here, there = (
        json.loads((tmp_path / side / "detections.json").read_text()) for side in ("here", "there")
    )
    assert len(here) == len(there) > 3
    for one, other in zip(here, there, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-4)
        assert one["category_id"] == other["category_id"]
        assert one["segmentation"] == other["segmentation"]


def test_in_ci_a_skip_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="may not be skipped"):
        cannot("no Python")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        cannot("no Python")
