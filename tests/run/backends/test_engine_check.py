"""An engine that does not belong here is refused before anything loads it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pointrend_deploy.bundle.folder import MODEL, Bundle, sha256_of
from pointrend_deploy.bundle.records import EngineFile, EngineRecord
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.backends.trt import Host, check_engine
from tests.fixtures.tiny_bundle import write_tiny_bundle

NAME = "trt-sm87-fp16-plugin"
HOST = Host("tensorrt", "10.3.0", 87, "a" * 64, "Linux aarch64")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with one engine of no meaning."""
    return with_engine(Bundle.open(write_tiny_bundle(tmp_path / "bundle")))


def with_engine(bundle: Bundle, **changes: object) -> Bundle:
    folder = bundle.path / "new"
    folder.mkdir()
    (folder / "model.engine").write_bytes(b"an engine")
    (folder / "build.log").write_text("[I] built")
    fields: dict[str, object] = {
        "builder": "tensorrt",
        "version": "10.3.0",
        "platform": "Linux aarch64",
        "capability": 87,
        "gpu": "Orin",
        "precision": "fp16",
        "ops": "plugin",
        "workspace_mib": 1024,
        "plugin_sha256": "a" * 64,
        "plugin_tensorrt": "10.3.0",
        "timing_cache": "new",
        "engines": (
            EngineFile(
                file=f"engines/{NAME}/model.engine",
                sha256=sha256_of(folder / "model.engine"),
                source=MODEL,
                source_sha256=bundle.manifest.files[MODEL],
            ),
        ),
    }
    record = EngineRecord(**{**fields, **changes})  # type: ignore[arg-type]
    return bundle.add_engine(NAME, record, folder)


def test_one_that_belongs_here(bundle: Bundle) -> None:
    (path,) = check_engine(Bundle.open(bundle.path), NAME, HOST)
    assert path.read_bytes() == b"an engine"
    assert not (bundle.path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "10.3.1"}, r"built by TensorRT 10\.3\.0, and this is TensorRT 10\.3\.1"),
        ({"builder": "tensorrt_rtx"}, r"and this is TensorRT-RTX 10\.3\.0"),
        ({"capability": 110}, r"compute capability 8\.7; this one is of 11\.0"),
        ({"capability": None}, "there is no GPU here"),
        ({"plugin_sha256": "b" * 64}, "another plugin library"),
        ({"plugin_sha256": None}, "needs the plugin library"),
        ({"platform": "Linux x86_64"}, "built on Linux aarch64, and this is Linux x86_64"),
    ],
)
def test_one_of_another_machine(bundle: Bundle, changes: dict[str, object], words: str) -> None:
    with pytest.raises(DeployError, match=words) as caught:
        check_engine(bundle, NAME, replace(HOST, **changes))  # type: ignore[arg-type]
    assert "pointrend-deploy build" in caught.value.hint


def test_one_without_plugins_needs_no_library(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "other"))
    bundle = with_engine(bundle, plugin_sha256=None, plugin_tensorrt=None, ops="native")
    check_engine(bundle, NAME, replace(HOST, plugin_sha256=None))
    check_engine(bundle, NAME, HOST)


def test_one_that_was_not_built(bundle: Bundle) -> None:
    with pytest.raises(DeployError, match=f"has no engine trt-sm87-int8-plugin, but {NAME}"):
        check_engine(bundle, "trt-sm87-int8-plugin", HOST)


def test_one_that_changed(bundle: Bundle) -> None:
    engine = bundle.path / "engines" / NAME / "model.engine"
    engine.write_bytes(b"another engine")
    with pytest.raises(DeployError, match="is not the file that was exported"):
        check_engine(bundle, NAME, HOST)
    engine.unlink()
    with pytest.raises(DeployError, match="has no engines/"):
        check_engine(bundle, NAME, HOST)


def test_one_of_an_earlier_graph(bundle: Bundle) -> None:
    bundle = bundle.update({MODEL: "another graph"})
    assert NAME in bundle.manifest.engines
    with pytest.raises(DeployError, match=r"built from another model\.onnx"):
        check_engine(bundle, NAME, HOST)


def test_a_writer_stopped_between_the_folder_and_the_manifest(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest vouches for both engines, and for neither as the other's record."""
    before = shutil.copytree(bundle.path, tmp_path / "before")

    class Stop(BaseException):
        pass

    from pointrend_deploy import atomic

    def stop(*_: object) -> None:
        raise Stop

    folder = bundle.path / "new"
    folder.mkdir()
    (folder / "model.engine").write_bytes(b"a better engine")
    record = bundle.manifest.engines[NAME]
    better = EngineFile(
        file=f"engines/{NAME}/model.engine",
        sha256=sha256_of(folder / "model.engine"),
        source=MODEL,
        source_sha256=bundle.manifest.files[MODEL],
    )
    from msgspec.structs import replace as changed

    monkeypatch.setattr(atomic, "_swap_folder", stop)
    with pytest.raises(Stop):
        bundle.add_engine(NAME, changed(record, engines=(better,)), folder)
    monkeypatch.undo()
    opened = Bundle.open(bundle.path)
    assert opened.file(f"engines/{NAME}/model.engine").read_bytes() == b"an engine"
    with pytest.raises(DeployError, match="is not the engine that was built"):
        check_engine(opened, NAME, HOST)
    check_engine(Bundle.open(before), NAME, HOST)
