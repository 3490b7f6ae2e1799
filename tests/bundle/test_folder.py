"""Bundles and atomic files: nothing half-written, nothing changed unnoticed."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import Bundle, sha256_of
from pointrend_deploy.bundle.manifest import (
    Canvas,
    Manifest,
    Preprocess,
    TensorSpec,
    WeightsRecord,
    encode_manifest,
)
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.semantic import load_recipe
from tests.repository import ROOT

EXPORT = ROOT / "export"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("model.onnx", "weights.safetensors", "parity.json"):
        (folder / name).write_bytes(name.encode() * 100)
    recipe = load_recipe(EXPORT / "pointrend_semantic_fpn_r101_cityscapes.toml")
    manifest = Manifest(
        schema=1,
        name=recipe.name,
        created_by="pointrend-deploy test",
        recipe=recipe,
        canvas=Canvas(size_hw=(60, 60), padded_hw=(64, 64), batch=1),
        preprocess=Preprocess(
            location="outside",
            channel_order="BGR",
            pixel_mean=(1.0, 2.0, 3.0),
            pixel_std=(1.0, 1.0, 1.0),
        ),
        inputs=(TensorSpec(name="image", dtype="float32", shape=(1, 3, 64, 64)),),
        outputs=(TensorSpec(name="labels", dtype="uint8", shape=(1, 64, 64)),),
        ops="plugin",
        opset=18,
        graphs={"fp32": "model.onnx"},
        weights=WeightsRecord(
            file="weights.safetensors",
            sha256=sha256_of(folder / "weights.safetensors"),
            included=True,
            source_sha256="0" * 64,
            source_name="model_final.pkl",
        ),
        versions={},
        files={path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    )
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return folder


def test_opens_and_gives_its_files(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.file("model.onnx") == bundle / "model.onnx"
    assert opened.manifest.output_names == ("labels",)
    assert opened.manifest.output("logits") is None


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "parity.json"])
def test_one_byte_changed_is_seen(bundle: Path, name: str) -> None:
    raw = bytearray((bundle / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle / name).write_bytes(raw)
    with pytest.raises(DeployError, match=f"{name} is not the file that was exported"):
        Bundle.open(bundle)


def test_any_meaningful_byte_of_the_manifest(bundle: Path) -> None:
    path = bundle / "manifest.json"
    original = path.read_bytes()
    for position in range(0, len(original), 97):
        raw = bytearray(original)
        raw[position] ^= 1
        path.write_bytes(raw)
        try:
            meant = json.loads(raw)
        except ValueError:
            meant = None
        if meant == json.loads(original):
            continue
        with pytest.raises(DeployError):
            Bundle.open(bundle)


def test_weights_may_stay_behind_until_they_are_asked_for(bundle: Path) -> None:
    (bundle / "weights.safetensors").unlink()
    opened = Bundle.open(bundle)
    with pytest.raises(DeployError, match=r"has no weights\.safetensors"):
        opened.file("weights.safetensors")


def test_update_lists_what_it_writes(bundle: Path) -> None:
    Bundle.open(bundle).update({"parity.json": "{}", "report.md": "# ä\n"})
    again = Bundle.open(bundle)
    assert again.file("report.md").read_text() == "# ä\n"
    assert again.file("parity.json").read_text() == "{}"
    assert not list(bundle.glob(".*"))


def test_what_killed_writers_left_goes_with_the_next_update(bundle: Path) -> None:
    killed = (
        "import os, signal, sys; from pointrend_deploy import atomic\n"
        "with atomic.replacing(sys.argv[1]) as file:\n"
        "    file.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for name in ("parity.json", "manifest.json"):
        done = subprocess.run([sys.executable, "-c", killed, str(bundle / name)], check=False)
        assert done.returncode == -signal.SIGKILL
    assert len(list(bundle.glob(".*"))) == 2
    Bundle.open(bundle).update({"parity.json": "{}"})
    assert not list(bundle.glob(".*"))


def test_no_bundle_other_schema_and_escaping_names(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="is not a bundle"):
        Bundle.open(tmp_path)
    manifest = Bundle.open(bundle).manifest
    path = bundle / "manifest.json"
    path.write_bytes(encode_manifest(msgspec.structs.replace(manifest, schema=9)))
    with pytest.raises(DeployError, match="schema 9"):
        Bundle.open(bundle)
    for name in ("../secret", "/etc/passwd", "a/../../b"):
        changed = msgspec.structs.replace(manifest, files={name: "0" * 64})
        path.write_bytes(encode_manifest(changed))
        with pytest.raises(DeployError, match="outside the bundle"):
            Bundle.open(bundle)
    path.write_text("[1, 2]")
    with pytest.raises(DeployError, match="not a bundle's manifest"):
        Bundle.open(bundle)


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    atomic.write_text(target, "first")
    with pytest.raises(ZeroDivisionError), atomic.replacing(target) as temporary:
        temporary.write_text("second")
        raise ZeroDivisionError
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(DeployError, match="No space left") as caught, atomic.replacing(target) as t:
        t.mkdir()
        (t / "new").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "nothing that was there has changed" in caught.value.hint
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").write_text("old")
    with atomic.replacing(target) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DeployError, match="cannot write"):
        atomic.write_text(tmp_path / "file" / "below", "y")


class Stopped(BaseException):
    pass


def test_an_update_stopped_anywhere_leaves_a_sound_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename of an update is made the last thing the process does."""
    import os

    original, left = os.replace, [0]

    def stop_after(source: Path, target: Path) -> None:
        if not left[0]:
            raise Stopped
        left[0] -= 1
        original(source, target)

    monkeypatch.setattr(os, "replace", stop_after)
    texts = {"parity.json": "new", "report.html": "new"}
    for allowed in range(4):
        left[0] = allowed
        with pytest.raises(Stopped):
            Bundle.open(bundle).update(texts)
        opened = Bundle.open(bundle)
        assert opened.file("model.onnx").is_file()
    left[0] = 99
    done = Bundle.open(bundle).update(texts)
    assert done.manifest.previous == {}
    assert Bundle.open(bundle).file("parity.json").read_text() == "new"


def test_two_writers_take_turns(bundle: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def write(number: int) -> None:
        Bundle.open(bundle).update({"parity.json": str(number), f"note{number}.md": "x"})

    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: _retried(lambda: write(n)), range(4)))
        opened = Bundle.open(bundle)
        assert {f"note{n}.md" for n in range(4)} <= set(opened.manifest.files)


def _retried(action: object) -> None:
    """Opening may meet a file between two manifests; a writer's own turn never does."""
    for _ in range(50):
        try:
            action()  # type: ignore[operator]
            return
        except DeployError as error:
            if "is not the file" not in error.message:
                raise
    raise AssertionError("never a sound moment")


def test_a_full_disk_during_an_update_changes_nothing(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    before = {path.name: path.read_bytes() for path in bundle.iterdir()}

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeployError, match="No space left") as caught:
        Bundle.open(bundle).update({"parity.json": "new", "other.md": "new"})
    assert "free some space" in caught.value.hint
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_link_stays_and_its_target_changes(tmp_path: Path) -> None:
    (tmp_path / "v3").mkdir()
    (tmp_path / "v3" / "old").write_text("old")
    (tmp_path / "current").symlink_to("v3")
    with atomic.replacing(tmp_path / "current") as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert (tmp_path / "current").is_symlink()
    assert [path.name for path in (tmp_path / "v3").iterdir()] == ["new"]


def test_a_manifest_that_is_nested_beyond_reason(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("[" * 300_000)
    with pytest.raises(DeployError, match="not readable"):
        Bundle.open(bundle)


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    killed = (
        "import os, signal, sys, pathlib; from pointrend_deploy import atomic\n"
        "with atomic.replacing(sys.argv[1]) as folder:\n"
        "    folder.mkdir(); (folder / 'file').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".folder.partial-*"))) == 1
    running = atomic.partial_name(target)
    running.mkdir()  # of this process, which lives: another writer may be at work
    with atomic.replacing(target) as folder:
        folder.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([running.name, "folder"])
