"""Scenes without their noise become the scenes again, and two files the standard model."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend_deploy.errors import DeployError
from scripts import unpack_demo
from scripts.demo_training import noise
from scripts.demo_training.compose import make_scene
from scripts.demo_training.packed import packed, unpacked
from scripts.unpack_demo import (
    DENSE,
    DIFFERENCES,
    HEAD,
    MASK_HEAD,
    ROOT,
    SCENES,
    SEMANTIC,
    STANDARD,
    TRUNK,
    unpack,
)
from tests.scripts.test_demo_scenes import opaque_material


def whole(folder: Path) -> Path:
    """A copy of what is stored."""
    for place in (*SCENES, TRUNK, HEAD, SEMANTIC, DIFFERENCES):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / place).is_dir() else shutil.copy
        copy(ROOT / place, folder / place)
    return folder


def test_everything_is_made_once_and_again_where_it_is_wrong(tmp_path: Path) -> None:
    root = whole(tmp_path)
    written = unpack(root)
    assert len(written) == 36 + 36 + 32 + 2
    assert unpack(root) == []
    wrong = [root / "demo/scenes/0003.png", root / STANDARD, root / DENSE]
    wrong[0].write_bytes(b"another")
    wrong[1].unlink()
    wrong[2].write_bytes(b"another")
    assert sorted(unpack(root)) == sorted(wrong)
    for path in written:
        assert path.read_bytes() == (ROOT / path.relative_to(root)).read_bytes()


def test_each_stored_scene_is_listed_and_each_listed_one_stored() -> None:
    for stored in SCENES:
        rows = json.loads((ROOT / stored / noise.LISTING).read_text())
        assert {f"{name}.webp" for name in rows} == {p.name for p in (ROOT / stored).glob("*.webp")}
    listed = dict(
        reversed(line.split("  "))
        for line in (ROOT / "calibration" / "scenes.sha256").read_text().splitlines()
    )
    rows = json.loads((ROOT / "calibration" / "noiseless" / noise.LISTING).read_text())
    assert {f"scenes/{name}.png": row["sha256"] for name, row in rows.items()} == listed


def test_a_scene_is_stored_and_restored(tmp_path: Path) -> None:
    scenes = [make_scene(seed, opaque_material(), 96) for seed in range(8)]
    noise.store(tmp_path, {str(n): noise.drawn_scene(scene) for n, scene in enumerate(scenes)})
    assert len(noise.restore(tmp_path, tmp_path / "out")) == 8
    strengths = []
    for number, scene in enumerate(scenes):
        with Image.open(tmp_path / "out" / f"{number}.png") as restored:
            assert np.array_equal(np.asarray(restored), scene.image)
        with Image.open(tmp_path / f"{number}.webp") as stored:
            strengths.append((np.asarray(stored).astype(int) - scene.image).std())
    assert max(strengths) > 2.0, "the stored pictures have the noise"
    assert scenes[0].noise is not None
    with pytest.raises(ValueError, match="not the noise"):
        noise.store(tmp_path, {"0": (scenes[1].image, scenes[0].noise)})


def test_a_damaged_scene_is_refused(tmp_path: Path) -> None:
    stored = make_scene(3, opaque_material(), 64)
    noise.store(tmp_path, {"a": noise.drawn_scene(stored)})
    listing = tmp_path / noise.LISTING
    text = listing.read_text()
    listing.write_text(re.sub('"state": "0x.', '"state": "0x7', text))
    if listing.read_text() == text:
        listing.write_text(re.sub('"state": "0x.', '"state": "0x3', text))
    with pytest.raises(DeployError, match=r"a\.webp does not give") as caught:
        noise.restore(tmp_path, tmp_path / "out")
    assert "constraints.txt" in caught.value.hint
    assert not (tmp_path / "out" / "a.png").exists()


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = whole(tmp_path)
    (root / "demo/noiseless/scenes/0001.webp").unlink()
    with pytest.raises(DeployError, match=r"0001\.webp"):
        unpack(root)
    monkeypatch.setattr(unpack_demo, "unpack", lambda: unpack(root))
    assert unpack_demo.main() == 1


def test_a_png_is_read_by_others_and_needs_no_library() -> None:
    for height, width in ((1, 1), (3, 5), (200, 300)):
        picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        data = noise.png(picture)
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), picture)
        assert len(data) < picture.size + height + 120


def test_the_head_is_the_mask_head_alone() -> None:
    head = unpacked((ROOT / HEAD).read_bytes(), {})
    assert head
    assert all(name.startswith(MASK_HEAD) for name in head)


def test_the_dense_model_is_the_one_that_was_trained() -> None:
    digest = hashlib.sha256((ROOT / DENSE).read_bytes()).hexdigest()
    assert digest == "3c8d0f2a34aea99a5dbb6ab3a21b8587edc3502d999ff1d08bfc06ed0bd87ae4"


def test_weights_are_packed_without_loss() -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    tensors = {"a": bits.view(torch.float16), "b": torch.ones(3).half()}
    base = {"a": bits.flip(0).view(torch.float16), "b": torch.ones(2).half()}
    found = unpacked(packed(tensors, base), base)
    assert found["a"].view(torch.int16).equal(bits)  # every number, NaN among them
    assert found["b"].equal(tensors["b"])
    assert not unpacked(packed(tensors, base), tensors)["a"].view(torch.int16).equal(bits)


@pytest.mark.parametrize("data", [b"", b"no archive", packed({"a": torch.ones(9).half()}, {})[:-9]])
def test_damaged_weights_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpacked(data, {})
