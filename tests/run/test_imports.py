"""The device side is light: what is imported before a runner is chosen, and by the ONNX runner."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.fixtures.tiny_bundle import colour_picture, write_tiny_bundle
from tests.fixtures.tiny_instances import write_things_bundle
from tests.repository import ROOT
from tests.run.device_side import DEVICE_SIDE

HEAVY = ["torch", "onnx", "onnxscript", "onnx_graphsurgeon", "polygraphy", "matplotlib", "jinja2"]
RUN_MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in DEVICE_SIDE
    if path.stem != "__init__"
)


def imported_by(code: str, names: list[str]) -> list[str]:
    """Which of ``names`` a fresh interpreter has loaded after running ``code``."""
    report = f"{code}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout.split()


def test_the_check_sees_an_import() -> None:
    assert imported_by("import colorsys", ["colorsys", *HEAVY]) == ["colorsys"]


def test_run_modules_import_nothing_heavy() -> None:
    assert "pointrend_deploy.run.backends.pytorch" in RUN_MODULES
    assert "pointrend_deploy.pictures.canvas" in RUN_MODULES
    heavy = [*HEAVY, "onnxruntime", "rich", "typer", "cv2", "pointrend_deploy.model"]
    assert imported_by("import " + ", ".join(RUN_MODULES), heavy) == []


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_tiny_bundle, write_things_bundle])
def test_a_whole_run_needs_no_torch(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    bundle = write(tmp_path / "bundle")
    Image.fromarray(colour_picture(20, 30)).save(tmp_path / "a.png")
    code = (
        "from pointrend_deploy.run.folder import run_pictures\n"
        "from pointrend_deploy.run.open import open_runner\n"
        f"runner = open_runner({str(bundle)!r})\n"
        f"assert run_pictures(runner, {str(tmp_path / 'a.png')!r}, {str(tmp_path / 'out')!r})\n"
    )
    heavy = [*HEAVY, "pycocotools", "faster_coco_eval"]
    assert imported_by(code, ["onnxruntime", *heavy]) == ["onnxruntime"]
