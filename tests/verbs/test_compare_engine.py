"""compare --runner tensorrt: the engine asked for is the side that is compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.run.backends.onnxrt import OnnxRunner
from pointrend_deploy.verbs import compare
from tests.cli.test_cli import cli
from tests.conftest import Exporter


class Engine(OnnxRunner):
    """An engine played by the graph it would have been built from."""

    name = "tensorrt"
    wrong = False

    def _infer(self, batch: dict[str, Any]) -> dict[str, Any]:
        outputs = super()._infer(batch)
        if self.wrong:
            outputs["labels"] = np.roll(outputs["labels"], 1, axis=2)
        return outputs


@pytest.fixture
def copied(exported: Exporter, tmp_path: Path) -> tuple[Path, Path]:
    """A bundle of this test's own, and a folder with one picture."""
    bundle, images = tmp_path / "bundle", tmp_path / "images"
    shutil.copytree(exported(), bundle)
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).resize((120, 90)).save(images / "a.png")
    return bundle, images


@pytest.mark.parametrize("wrong", [False, True])
def test_the_engine_is_compared(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    bundle, images = copied
    asked = []

    def open_runner(
        opened: Bundle, runner: str, *, engine: str | None = None, precision: str | None = None
    ) -> Engine:
        asked.append((runner, engine))
        assert precision is None
        return Engine(opened)

    monkeypatch.setattr(compare, "open_runner", open_runner)
    monkeypatch.setattr(Engine, "wrong", wrong)
    result = compare.compare_bundle(bundle, images, runner="tensorrt", engine="trt-sm87-fp32")
    assert asked == [("tensorrt", "trt-sm87-fp32")]
    assert (result.run.candidate, bool(result)) == ("tensorrt", not wrong)


def test_refused_before_the_work(copied: tuple[Path, Path]) -> None:
    bundle, images = copied
    with pytest.raises(DeployError, match="engine"):
        compare.compare_bundle(bundle, images, runner="tensorrt")
    with pytest.raises(DeployError, match="runs no engine"):
        compare.compare_bundle(bundle, images, runner="onnx", engine="trt-sm87-fp32")
    with pytest.raises(UsageError, match="not a side"):
        compare.compare_bundle(bundle, images, runner="torch")  # type: ignore[arg-type]


def test_on_the_command_line(copied: tuple[Path, Path]) -> None:
    bundle, images = copied
    done = cli("compare", bundle, "--images", images, "--runner", "tensorrt")
    assert done.returncode == 1
    assert "engine" in done.stderr
