"""A small real model and bundles exported from it; threads and the order of a run's tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pointrend_deploy.recipe.semantic import Recipe
from scripts import threads
from scripts.unpack_demo import unpack
from tests.fixtures import shared
from tests.fixtures.recipes import small_recipe
from tests.repository import ROOT

LONGEST = (
    "tests/verbs/test_build_instances.py",
    "tests/graph/instance/test_export.py",
    "tests/verbs/export/test_export.py",
    "tests/cli/test_cli.py",
    "tests/verbs/test_build.py",
    "tests/verbs/export/test_instance.py",
    "tests/quantize/test_int8_demo.py",
    "tests/graph/instance/test_golden_graphs.py",
    "tests/graph/semantic/test_export.py",
    "tests/engine/test_int8_rtx.py",
    "tests/graph/test_contract.py",
    "tests/plugins/test_rtx.py",
    "tests/verbs/export/test_instance_pictures.py",
)
"""The longest files, in this order: a worker that gets one last ends minutes after the others."""
NUMERIC = (
    "tests/model/",
    "tests/parity/",
    "tests/graph/instance/test_detector.py",
    "tests/graph/instance/test_golden_graphs.py",
    "tests/graph/instance/test_rows.py",
    "tests/graph/instance/test_sample_rois.py",
    "tests/graph/semantic/test_rewrites.py",
    "tests/graph/test_upsample_bodies.py",
)
"""Where tests compare numbers with goldens, references and planted errors: they are `numeric`."""
SIZE = (64, 96)
Exporter = Callable[..., Path]


def pytest_configure() -> None:
    """Limit the threads that workers inherit; make the demonstration files not stored in git."""
    threads.limit(int(os.environ.get("TEST_THREADS", "1")))
    unpack()


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark numeric tests; put the longest files first, then those with the most slow tests."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    place = {name: number for number, name in enumerate(LONGEST)}

    def order(item: pytest.Item) -> tuple[int, int]:
        name = item.path.relative_to(ROOT).as_posix()
        return place.get(name, len(place)), -slow[item.path]

    items.sort(key=order)
    for item in items:
        if item.path.relative_to(ROOT).as_posix().startswith(NUMERIC):
            item.add_marker("numeric")


@pytest.fixture(scope="session", autouse=True)
def shared_by_workers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where :mod:`tests.fixtures.shared` keeps what it makes."""
    shared.begin(tmp_path_factory)


def small_weights(recipe: Recipe, path: Path) -> Path:
    """Random weights with lively logits, so that labels vary over a picture."""
    from pointrend_deploy.model.semantic.model import build_model

    torch.manual_seed(5)
    model = build_model(recipe)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("predictor.weight"):
                value.mul_(6.0)
    tensors = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file({k: v.contiguous() for k, v in tensors.items()}, str(path))
    return path


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return small_recipe()


@pytest.fixture(scope="session")
def weights(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_weights(recipe, tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="session")
def exported(recipe: Recipe, weights: Path) -> Exporter:
    """Export the small model with some options, once for each set of them. Not to be changed."""

    def export(**options: object) -> Path:
        return shared.bundle(recipe, weights, **{"size_hw": SIZE, **options})

    return export


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures of different sizes."""
    from pointrend_deploy.pictures.generated import verification_picture

    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, (height, width) in enumerate(((64, 96), (90, 60), (33, 200))):
        Image.fromarray(verification_picture(height, width, index)).save(folder / f"{index}.png")
    return folder


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def without_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    """faster-coco-eval as if it were not installed."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that pages are looked at in."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no chromium, so the page was not looked at")
        pytest.skip("chromium is not installed: apt-get install chromium")
    return found
