"""The task is an object: chosen in one place, asked by everything else in run/."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.pictures.canvas import Fitted, fit
from pointrend_deploy.recipe import read
from pointrend_deploy.run import task as task_module
from pointrend_deploy.run.backends.onnxrt import OnnxRunner
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.prediction import Prediction
from pointrend_deploy.run.results import ResultRow, written_by
from pointrend_deploy.run.semantic.task import SemanticTask
from pointrend_deploy.run.task import TASKS, task_of
from pointrend_deploy.run.writer import Clock, Item, PictureOptions, PictureWriter
from pointrend_deploy.verbs.run import summary
from tests.fixtures.tiny_bundle import colour_picture, tiny_manifest, write_tiny_bundle
from tests.fixtures.tiny_instances import things_manifest
from tests.run.device_side import PACKAGE

RUN = PACKAGE / "run"
OF_NO_TASK = [*RUN.glob("*.py"), *(RUN / "backends").glob("*.py"), PACKAGE / "verbs" / "run.py"]


def forks(path: Path) -> list[str]:
    """Comparisons with the name of a task, and imports from a task's folder."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module for name in TASKS if f"run.{name}" in node.module]
        if isinstance(node, ast.Compare):
            values = [node.left, *node.comparators]
            constants = [v.value for v in values if isinstance(v, ast.Constant)]
            found += [name for name in TASKS if name in constants]
    return found


@pytest.mark.parametrize("path", OF_NO_TASK, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_choosing_module_knows_the_tasks(path: Path) -> None:
    assert bool(forks(path)) == (path == RUN / "task.py")


def test_a_planted_fork_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    for text in (
        'if manifest.recipe.task == "instance": pass',
        "from pointrend_deploy.run.semantic.task import SemanticTask",
    ):
        path.write_text(text)
        assert forks(path)


def test_every_recipe_has_a_task() -> None:
    assert list(TASKS) == list(read._FORMS)
    assert all(TASKS[name].name == name for name in TASKS)
    assert type(task_of(tiny_manifest())) is TASKS["semantic"]
    assert type(task_of(things_manifest())) is TASKS["instance"]


class Mean(Prediction):
    def drawn_on(self, rgb: Any, above: float | None = None) -> Any:
        raise NotImplementedError


class Brightness:
    """A third kind of model: the mean label of a picture."""

    name = "brightness"
    keys = ("mean",)
    owned = ("means.txt",)

    def __init__(self, manifest: Any) -> None:
        self.manifest, self.semantic = manifest, SemanticTask(manifest)

    def fit(self, image: Any) -> Fitted:
        return fit(image, self.manifest)

    def graphs(self) -> Any:
        return self.semantic.graphs()

    def infer(self, calls: Any, batch: Any) -> Any:
        return self.semantic.infer(calls, batch)

    def finish(self, outputs: Mapping[str, Any], row: int, picture: Fitted) -> Prediction:
        return Mean(mean=float(outputs["labels"][row].mean()))

    def check(self, options: PictureOptions) -> None:
        return

    def writer(self, out: Path, options: PictureOptions, files: Sequence[Path]) -> PictureWriter:
        task = self

        class Means(PictureWriter):
            def write(self, outputs: Any, row: int, item: Item, clock: Clock) -> ResultRow:
                mean = task.finish(outputs, row, item.fitted)["mean"]
                with (out / "means.txt").open("a") as file:
                    file.write(f"{item.file} {mean}\n")
                return Row(item.file)

        return Means(self.manifest, out, options.overlays)

    def reference(self, weights: Path) -> Any:
        raise NotImplementedError

    @staticmethod
    def summary(pictures: Sequence[Any], out: Path) -> tuple[str, ...]:
        return (f"means in {out / 'means.txt'}",)


class Row(msgspec.Struct, frozen=True):
    """A row of ``results.json``."""

    file: str
    overlay: str | None = None


def test_a_third_kind_of_model_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(task_module.TASKS, "brightness", Brightness)
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "bundle", batch=2))
    monkeypatch.setattr(type(bundle.manifest.recipe), "task", "brightness")
    runner = OnnxRunner(bundle)
    images = [colour_picture(20, 30, seed) for seed in range(3)]
    assert set(runner(images[0])) == {"mean"}
    assert len(runner(images)["mean"]) == 3 and runner([]) == {"mean": []}
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for seed, image in enumerate(images):
        Image.fromarray(image[:, :, ::-1]).save(pictures / f"{seed}.png")
    results = run_pictures(runner, pictures, out)
    assert results and len((out / "means.txt").read_text().splitlines()) == 3
    assert written_by(out) == "brightness"
    assert summary(results, out).startswith(f"3 pictures with runner onnx: means in {out}")
    assert np.isfinite(runner(images)["mean"]).all()
