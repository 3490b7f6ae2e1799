"""The package as Python sees it: its public names, its types, and what its objects say."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

import pointrend_deploy
from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, ParityError, UsageError
from pointrend_deploy.run.open import open_runner
from tests.fixtures.tiny_bundle import colour_picture, write_tiny_bundle
from tests.fixtures.tiny_instances import bright_picture, write_things_bundle
from tests.repository import ROOT

LAZY = ("load_model", "load_recipe", "open_runner")


def test_dir_lists_the_public_names() -> None:
    listed = dir(pointrend_deploy)
    assert set(pointrend_deploy.__all__) <= set(listed) and set(LAZY) <= set(listed)
    assert listed == sorted(set(listed))


def test_dir_imports_nothing_heavy() -> None:
    code = (
        "import sys, pointrend_deploy\n"
        f"assert set({LAZY!r}) <= set(dir(pointrend_deploy))\n"
        "assert not {'torch', 'numpy', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300)


@pytest.mark.parametrize("name", LAZY)
def test_public_names_are_found(name: str) -> None:
    assert callable(getattr(pointrend_deploy, name))


def test_other_names_are_not_found() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pointrend_deploy.no_such_name


def test_the_marker_of_types_is_in_the_wheel() -> None:
    settings = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"][0] == "pointrend_deploy"  # all that git does not ignore
    assert (ROOT / "pointrend_deploy" / "py.typed").read_bytes() == b""


@pytest.mark.parametrize("kind", [DeployError, UsageError, ParityError])
def test_an_error_says_its_hint(kind: type[DeployError]) -> None:
    error = kind("the file a.toml is missing", "check the path")
    assert str(error) == "the file a.toml is missing\nhint: check the path"
    assert (error.message, error.hint) == ("the file a.toml is missing", "check the path")
    assert str(kind("no hint here")) == "no hint here"


def test_an_error_keeps_its_hint_through_pickle() -> None:
    error = pickle.loads(pickle.dumps(ParityError("message", "hint")))
    assert (type(error), error.message, error.hint) == (ParityError, "message", "hint")


def test_a_bundle_says_what_it_is(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "b")
    assert repr(Bundle.open(path)) == f"<Bundle {path}: tiny, semantic, 32x48, fp32, BGR pictures>"


def test_a_runner_says_what_it_runs(tmp_path: Path) -> None:
    semantic = open_runner(write_tiny_bundle(tmp_path / "s"), "onnx")
    assert repr(semantic) == "<OnnxRunner: tiny, semantic, 32x48, fp32, BGR pictures>"
    instance = open_runner(write_things_bundle(tmp_path / "i", batch=2), "onnx")
    order = instance.bundle.manifest.preprocess.channel_order
    for fact in ("<OnnxRunner: ", "instance", "batch 2", "fp32", f"{order} pictures>"):
        assert fact in repr(instance)
    assert "\n" not in repr(instance)


@pytest.mark.parametrize("given", [None, 3, b"bundle"])
def test_what_is_no_path_is_refused(given: object, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    calls = [
        (lambda: open_runner(given), "the bundle must be a path"),  # type: ignore[arg-type]
        (lambda: pointrend_deploy.load_recipe(given), "a recipe must be a path"),
        (lambda: pointrend_deploy.load_model(given, "a.pth"), "a recipe must be a path"),
        (lambda: pointrend_deploy.load_model("demo_semantic", given), "the checkpoint must be a"),
    ]
    if given is not None:
        weights = lambda: open_runner(bundle, weights=given)  # type: ignore[arg-type]  # noqa: E731
        calls.append((weights, "weights must be a path"))
    for call, message in calls:
        with pytest.raises(DeployError) as caught:
            call()
        assert caught.value.message.startswith(message)
        assert caught.value.message.endswith(f"(str or Path), not {type(given).__name__}")
        assert caught.value.hint


def test_answers_of_the_other_task_are_missed_with_the_own_ones_named(tmp_path: Path) -> None:
    labels = open_runner(write_tiny_bundle(tmp_path / "labels"))(colour_picture(32, 48))
    things = open_runner(write_things_bundle(tmp_path / "things"))(bright_picture(64, 128, [0, 3]))
    with pytest.raises(KeyError, match=r"this model's answers are result\['labels'\]"):
        labels["instances"]
    with pytest.raises(KeyError, match=r"this model's answers are result\['instances'\]"):
        things["labels"]
    with pytest.raises(AttributeError, match=r"no attribute 'labels': .*result\['labels'\]"):
        _ = labels.labels
    assert labels.get("instances") is None and "instances" not in labels
    found = things["instances"]
    for index, error, words in (
        ("boxes", TypeError, "found.boxes"),
        (slice(2), TypeError, "not by slice"),
        (len(found), IndexError, f"there are {len(found)} instances"),
        (-len(found) - 1, IndexError, "none of number"),
    ):
        for take in (found.__getitem__, found.mask, found.rle):
            with pytest.raises(error, match=words):
                take(index)


def test_pictures_and_scores_of_wrong_types(tmp_path: Path) -> None:
    runner = open_runner(write_things_bundle(tmp_path / "things"))
    picture = bright_picture(64, 128, [0, 3])
    for given in ("a.jpg", picture, None):
        with pytest.raises(DeployError, match="predict_all takes a list of pictures"):
            runner.predict_all(given)  # type: ignore[arg-type]
    with pytest.raises(DeployError, match=r"runner\(\[first, second\]\)"):
        runner(each for each in [picture])  # type: ignore[call-overload]
    with pytest.raises(DeployError, match="a batch is a dictionary of the inputs"):
        runner.infer(None)  # type: ignore[arg-type]
    names = [spec.name for spec in runner.bundle.manifest.inputs]
    with pytest.raises(DeployError, match="must be a numpy array, not int"):
        runner.infer(dict.fromkeys(names, 3))  # type: ignore[arg-type]
    result = runner(picture)
    for above in ("out.png", [0.5], True):
        with pytest.raises(UsageError, match="a number from 0 to 1, not"):
            result.draw(above)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="scores run from 0 to 1; above is 3"):
        result.draw(3)
    result.draw(np.float32(0.5))  # type: ignore[arg-type]
