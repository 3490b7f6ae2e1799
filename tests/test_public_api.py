"""The package as Python sees it: its public names, its types, and what its objects say."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import pointrend_deploy
from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, ParityError, UsageError
from pointrend_deploy.run.open import open_runner
from tests.fixtures.tiny_bundle import write_tiny_bundle
from tests.fixtures.tiny_instances import write_things_bundle
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
