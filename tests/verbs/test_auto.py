"""``--runner auto`` of `run` and `compare`, on a machine of doubles."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.run.backends import trt
from pointrend_deploy.verbs.compare import compare_bundle
from pointrend_deploy.verbs.run import run_bundle, summary
from tests.conftest import Exporter
from tests.engine.recorded import FULL
from tests.run.backends.fake_cuda import FakeCuda
from tests.run.backends.played import NAME, set_up, with_engines


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(trt, "check_import", lambda module: None)
    return set_up(FULL[0], monkeypatch, FakeCuda())


@pytest.fixture
def copied(exported: Exporter, tmp_path: Path) -> tuple[Bundle, Path]:
    """A bundle of this test's own, and a folder with one picture."""
    bundle, images = tmp_path / "bundle", tmp_path / "images"
    shutil.copytree(exported(ops="native"), bundle)
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).resize((120, 90)).save(images / "a.png")
    return Bundle.open(bundle), images


def test_run(
    machine: SimpleNamespace,
    copied: tuple[Bundle, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle, images = copied
    bundle = with_engines(bundle, machine.version)
    out = tmp_path / "out"
    results = run_bundle(bundle.path, images, out)
    assert (results.runner, results.precision) == ("tensorrt", "fp32")
    assert "with runner tensorrt" in summary(results, out)
    line = f"auto: runner tensorrt, engine {NAME}, precision fp32"
    assert capsys.readouterr().err.count(line) == 1


@pytest.mark.parametrize("precisions", [None, ("fp32",)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_compare_takes_an_engine_of_its_precision_only(
    machine: SimpleNamespace,
    copied: tuple[Bundle, Path],
    capsys: pytest.CaptureFixture[str],
    precision: str,
    precisions: tuple[str, ...] | None,
) -> None:
    bundle, images = copied
    bundle = with_engines(bundle, machine.version, precision=precision)
    result = compare_bundle(bundle.path, images, runner="auto", precisions=precisions)
    assert result
    assert result.run.candidate == ("tensorrt" if precision == "fp32" else "onnx")
    said = capsys.readouterr().err
    if precision == "fp32":
        assert f"auto: runner tensorrt, engine {NAME}, precision fp32" in said
    else:
        assert "auto: runner onnx, precision fp32; no engine, as the bundle has no fp32" in said
