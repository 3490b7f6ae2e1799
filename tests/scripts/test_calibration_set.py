"""The calibration set that ships: lists that hold, nothing of what is scored, credits for all."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.errors import DeployError
from scripts import calibration_set
from scripts.calibration_set import (
    LONGEST_SIDE,
    MOST_BYTES,
    PHOTOGRAPHS,
    ROOT,
    SCENE_SEEDS,
    Photograph,
    encoded,
    write_list,
    write_photographs,
    write_scenes,
)
from scripts.demo_training.command_line import FIRST_EVALUATION_SEED
from scripts.demo_training.material import PHOTOS
from tests.scripts.test_demo_scenes import opaque_material

CALIBRATION = ROOT / "calibration"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")
KINDS = ("photographs", "scenes")


def broken(listing: Path) -> list[str]:
    """Paths of a list whose file has another SHA-256."""
    found = []
    for line in listing.read_text().splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        if hashlib.sha256((listing.parent / match[2]).read_bytes()).hexdigest() != match[1]:
            found.append(match[2])
    return found


def listed(kind: str) -> list[str]:
    lines = (CALIBRATION / f"{kind}.sha256").read_text().splitlines()
    return [line.split("  ", 1)[1] for line in lines]


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_names_every_picture_and_its_hash(kind: str) -> None:
    assert broken(CALIBRATION / f"{kind}.sha256") == []
    assert listed(kind) == sorted(f"{kind}/{p.name}" for p in (CALIBRATION / kind).iterdir())


def test_a_changed_picture_breaks_its_list(tmp_path: Path) -> None:
    shutil.copytree(CALIBRATION, tmp_path / "set")
    picture = tmp_path / "set" / "photographs" / "coffee.jpg"
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert broken(tmp_path / "set" / "photographs.sha256") == ["photographs/coffee.jpg"]


def test_the_set_is_small_and_every_picture_differs() -> None:
    for kind, stored in (("photographs", "photographs"), ("scenes", "noiseless")):
        assert sum(path.stat().st_size for path in (CALIBRATION / stored).iterdir()) <= 3_000_000
        files = sorted((CALIBRATION / kind).iterdir())
        for path in files:
            with Image.open(path) as image:
                assert max(image.size) <= LONGEST_SIDE
                assert not image.getexif()
                assert np.asarray(image).std() > 10.0, "nothing to see"
        assert len({hashlib.sha256(path.read_bytes()).digest() for path in files}) == len(files)
    assert max(p.stat().st_size for p in (CALIBRATION / "photographs").iterdir()) <= MOST_BYTES


def test_nothing_is_of_the_split_that_is_scored() -> None:
    assert {PHOTOS[photograph.source] for photograph in PHOTOGRAPHS} <= {"train", "val"}
    assert all(seed < FIRST_EVALUATION_SEED for seeds in SCENE_SEEDS.values() for seed in seeds)
    names = [f"scenes/{kind}_{s:04}.png" for kind, seeds in SCENE_SEEDS.items() for s in seeds]
    assert listed("scenes") == sorted(names)
    assert listed("photographs") == [f"photographs/{photo.name}.jpg" for photo in PHOTOGRAPHS]
    scored = [ROOT / "demo" / "scenes", ROOT / "demo" / "instance" / "scenes"]
    known = {hashlib.sha256(p.read_bytes()).hexdigest() for d in scored for p in d.iterdir()}
    listing = (CALIBRATION / "scenes.sha256").read_text().splitlines()
    assert not known & {line.split()[0] for line in listing}


def test_every_photograph_is_credited() -> None:
    text = (CALIBRATION / "ATTRIBUTION.md").read_text()
    rows = {row.split(" | ")[0]: row for row in text.splitlines() if row.startswith("| ")}
    for photograph in PHOTOGRAPHS:
        (row,) = (r for name, r in rows.items() if name.split()[1] == f"{photograph.name}.jpg")
        _, author, licence, source, changed = row.strip("| ").split(" | ")
        assert author
        assert "CC BY" in licence or "CC0" in licence or licence == "public domain"
        assert source.startswith(("Debian", "scikit-image", "scikit-learn"))
        assert ("part" in changed) == (photograph.part != calibration_set.WHOLE)


def test_a_photograph_is_cut_upright_and_shrunk(tmp_path: Path) -> None:
    wide = np.zeros((1000, 3000, 3), np.uint8)
    wide[:, 1500:] = (250, 10, 10)
    sideways = Image.Exif()
    sideways[0x0112] = 6  # shown turned by 90 degrees: its right half stands below
    Image.fromarray(wide).save(tmp_path / "wide.jpg", exif=sideways)
    photograph = Photograph("low", "wide.jpg", (0.0, 0.5, 1.0, 1.0))
    (tmp_path / "low.jpg").write_bytes(encoded(photograph, tmp_path / "wide.jpg"))
    with Image.open(tmp_path / "low.jpg") as low:
        assert low.size == (683, 1024)
        assert not low.getexif()
        assert np.asarray(low)[20:].min(axis=(0, 1))[0] > 200


def test_a_missing_source_and_one_too_rich_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"nowhere\.jpg") as caught:
        write_photographs([Photograph("a", "nowhere.jpg")], tmp_path, tmp_path / "out")
    assert "fetch_demo_material.sh" in caught.value.hint
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    with pytest.raises(DeployError, match=f"more than {MOST_BYTES} bytes"):
        encoded(Photograph("noise", "noise.png"), tmp_path / "noise.png")


def test_scenes_are_made_again_byte_by_byte(tmp_path: Path) -> None:
    seeds = {"semantic": range(2), "instance": range(2, 4)}
    for folder in ("first", "second"):
        write_scenes(seeds, opaque_material(), tmp_path / folder)
        assert broken(tmp_path / folder / "scenes.sha256") == []
    first, second = (tmp_path / f / "scenes.sha256" for f in ("first", "second"))
    assert first.read_text() == second.read_text()
    assert len(first.read_text().splitlines()) == 4


def test_a_list_has_paths_relative_to_itself(tmp_path: Path) -> None:
    for name in ("b c.jpg", "a.jpg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    write_list(tmp_path / "list.sha256", [tmp_path / "in" / "b c.jpg", tmp_path / "in" / "a.jpg"])
    lines = (tmp_path / "list.sha256").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["in/a.jpg", "in/b c.jpg"]
    assert broken(tmp_path / "list.sha256") == []
