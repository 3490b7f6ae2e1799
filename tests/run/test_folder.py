"""A folder through a bundle: every good picture's results are written, every bad one is named."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.overlay import class_colours, overlay
from pointrend_deploy.run.results import result_names
from pointrend_deploy.run.runner import BundleRunner
from pointrend_deploy.run.semantic.labels import class_shares
from pointrend_deploy.run.writer import PictureOptions
from tests.fixtures.tiny_bundle import colour_picture, save_pictures, tiny_recipe, write_tiny_bundle
from tests.run.test_runner import expected_labels

COLOURS = class_colours(tiny_recipe().classes)


@pytest.fixture
def runner(tmp_path: Path) -> BundleRunner:
    return open_runner(write_tiny_bundle(tmp_path / "bundle"), "onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three good pictures, a truncated one, an empty one, and a sub-folder with one more."""
    names = enumerate(("a.png", "c.png", "e.png", "more/f.png"))
    good = {name: colour_picture(32, 48, seed) for seed, name in names}
    folder = save_pictures(tmp_path / "pictures", {**good, "b.jpg": colour_picture(90, 90)})
    data = (folder / "b.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(data[: len(data) // 2])
    (folder / "d.png").touch()
    return folder


def labels_in(path: Path) -> Any:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "partial" in path.name]


# --- the run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_good_pictures_are_written_and_bad_ones_named(
    tmp_path: Path, pictures: Path, batch: int
) -> None:
    runner = open_runner(write_tiny_bundle(tmp_path / "bundle", batch=batch), "onnx")
    out = tmp_path / "out"
    told: list[tuple[int, int]] = []
    results = run_pictures(runner, pictures, out, progress=lambda *numbers: told.append(numbers))
    assert not results
    assert [item.file for item in results.pictures] == ["a.png", "c.png", "e.png"]
    assert [item.file for item in results.skipped] == ["b.jpg", "d.png"]
    assert "truncated" in results.skipped[0].reason and "0 bytes" in results.skipped[1].reason
    assert results.sub_folders_left == 1
    assert told == [(done, 5) for done in range(6)]
    for seed, name in enumerate("ace"):
        bgr = colour_picture(32, 48, seed)[:, :, ::-1]
        assert np.array_equal(labels_in(out / "labels" / f"{name}.png"), expected_labels(bgr))
        with Image.open(out / "overlays" / f"{name}.jpg") as image:
            drawn = np.asarray(image).astype(int)
        expected = overlay(colour_picture(32, 48, seed), expected_labels(bgr), COLOURS)
        assert drawn.shape == (32, 48, 3)
        assert np.abs(drawn - expected).mean() < 6 < np.abs(drawn[::-1] - expected).mean()
    assert sorted(p.name for p in out.iterdir()) == ["labels", "overlays", "results.json"]
    assert not temporaries(out)


def test_results_json_says_it_all(tmp_path: Path, runner: BundleRunner, pictures: Path) -> None:
    results = run_pictures(runner, pictures, tmp_path / "out")
    table = json.loads((tmp_path / "out" / "results.json").read_text())
    assert table["schema"] == 1 and table["complete"] is True
    assert table["bundle"] == "tiny" and table["runner"] == "onnx"
    assert [item["file"] for item in table["skipped"]] == ["b.jpg", "d.png"]
    first = table["pictures"][0]
    assert first["file"] == "a.png"
    assert first["labels"] == "labels/a.png" and first["overlay"] == "overlays/a.jpg"
    assert first["picture_hw"] == first["fitted_hw"] == [32, 48]
    assert first["labels_from"] == "exact"
    assert set(first["ms"]) == {"read", "prepare", "infer", "labels", "write"}
    assert all(value >= 0 for value in first["ms"].values())
    assert sum(first["class_shares"].values()) == pytest.approx(1, abs=1e-5)
    labels = labels_in(tmp_path / "out" / "labels" / "a.png")
    assert first["class_shares"]["green"] == pytest.approx((labels == 1).mean(), abs=1e-5)
    assert len(results.pictures) == len(table["pictures"])


def test_channel_order_is_the_recipes(tmp_path: Path, pictures: Path) -> None:
    for order, same in (("BGR", True), ("RGB", False)):
        path = write_tiny_bundle(tmp_path / order, channel_order=order)
        run_pictures(open_runner(path, "onnx"), pictures / "a.png", tmp_path / f"out-{order}")
        labels = labels_in(tmp_path / f"out-{order}" / "labels" / "a.png")
        expected = expected_labels(colour_picture(32, 48, 0)[:, :, ::-1])
        assert np.array_equal(labels, expected) is same


def test_a_turned_picture_comes_back_upright(tmp_path: Path, runner: BundleRunner) -> None:
    upright = colour_picture(48, 72)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "t.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "u.png")
    for name in ("t", "u"):
        run_pictures(runner, tmp_path / f"{name}.png", tmp_path / name)
    turned, expected = (labels_in(tmp_path / n / "labels" / f"{n}.png") for n in ("t", "u"))
    assert turned.shape == (48, 72)
    assert np.array_equal(turned, expected)


def test_one_picture_and_no_overlay(tmp_path: Path, runner: BundleRunner, pictures: Path) -> None:
    options = PictureOptions(overlays=False)
    results = run_pictures(runner, pictures / "a.png", tmp_path / "out", options)
    assert results and results.sub_folders_left == 0
    assert results.pictures[0].overlay is None
    assert not (tmp_path / "out" / "overlays").exists()


def test_one_bad_picture(tmp_path: Path, runner: BundleRunner, pictures: Path) -> None:
    results = run_pictures(runner, pictures / "b.jpg", tmp_path / "out")
    assert not results and not results.pictures and len(results.skipped) == 1


def test_recursive_keeps_folders(tmp_path: Path, runner: BundleRunner, pictures: Path) -> None:
    results = run_pictures(runner, pictures, tmp_path / "out", PictureOptions(recursive=True))
    assert results.pictures[-1].file == "more/f.png"
    assert results.pictures[-1].labels == "labels/more/f.png"
    assert (tmp_path / "out" / "labels" / "more" / "f.png").is_file()
    assert results.sub_folders_left == 0


def test_a_second_run_replaces_the_first(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    out = pictures / "out"
    first = run_pictures(runner, pictures, out, PictureOptions(recursive=True))
    stray = out / "labels" / "kept.png"
    stray.write_bytes(b"mine")
    Image.fromarray(colour_picture(32, 48, 9)).save(pictures / "a.png")
    second = run_pictures(runner, pictures, out, PictureOptions(recursive=True))
    assert [p.file for p in second.pictures] == [p.file for p in first.pictures]  # no results
    bgr = colour_picture(32, 48, 9)[:, :, ::-1]
    assert np.array_equal(labels_in(out / "labels" / "a.png"), expected_labels(bgr))
    assert stray.read_bytes() == b"mine"


def test_same_stem_twice_keeps_both(tmp_path: Path, runner: BundleRunner) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, name in enumerate(("x.bmp", "x.png", "X.tif")):
        Image.fromarray(colour_picture(32, 48, seed)).save(folder / name)
    results = run_pictures(runner, folder, tmp_path / "out")
    assert results and len({item.labels.lower() for item in results.pictures}) == 3
    for item in results.pictures:
        with Image.open(folder / item.file) as image:
            bgr = np.asarray(image)[:, :, ::-1]
        assert np.array_equal(labels_in(tmp_path / "out" / item.labels), expected_labels(bgr))


def test_names_that_are_not_utf8(tmp_path: Path, runner: BundleRunner) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    odd = os.fsdecode(b"caf\xe9.png")
    try:
        Image.fromarray(colour_picture(8, 8)).save(folder / "plain.png")
        (folder / "plain.png").rename(folder / odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    results = run_pictures(runner, folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["pictures"]
    assert results.pictures[0].file == "caf\\udce9.png"
    assert (tmp_path / "out" / "labels" / odd).is_file()


# --- refusals -----------------------------------------------------------------------------------


def test_missing_and_empty(tmp_path: Path, runner: BundleRunner) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "no picture in"), ("nowhere", "no such picture or folder")):
        with pytest.raises(DeployError, match=message):
            run_pictures(runner, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_and_ground_truth_are_never_replaced(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    with pytest.raises(DeployError, match="mixed with the pictures"):
        run_pictures(runner, pictures, pictures)
    with pytest.raises(DeployError, match="mixed with the pictures"):
        run_pictures(runner, pictures / "a.png", pictures)
    dataset = tmp_path / "dataset"
    (dataset / "labels").mkdir(parents=True)
    (dataset / "labels" / "a.png").write_bytes(b"the truth")
    with pytest.raises(DeployError, match="was not written by a run"):
        run_pictures(runner, pictures, dataset)
    assert (dataset / "labels" / "a.png").read_bytes() == b"the truth"
    run_pictures(runner, pictures, tmp_path / "out")
    with pytest.raises(DeployError, match="mixed with the pictures"):
        run_pictures(runner, tmp_path / "out" / "labels", tmp_path / "out")


def test_only_results_left(tmp_path: Path, runner: BundleRunner, pictures: Path) -> None:
    out = tmp_path / "outer" / "out"
    run_pictures(runner, pictures, out)
    with pytest.raises(DeployError, match="results of earlier runs"):
        run_pictures(runner, tmp_path / "outer", out, PictureOptions(recursive=True))


def test_full_disk(tmp_path: Path, runner: BundleRunner, pictures: Path, monkeypatch: Any) -> None:
    out = tmp_path / "out"
    run_pictures(runner, pictures / "a.png", out)
    before = (out / "labels" / "a.png").read_bytes()
    real = os.fsync

    def full(descriptor: int) -> None:
        if "a.png" in Path(f"/proc/self/fd/{descriptor}").readlink().name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeployError, match="No space left on device") as caught:
        run_pictures(runner, pictures, out)
    assert "a.png" in caught.value.message and caught.value.exit_code == 1
    assert (out / "labels" / "a.png").read_bytes() == before
    assert json.loads((out / "results.json").read_text())["complete"] is False
    assert not temporaries(out)


def test_a_file_where_the_results_should_go(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DeployError, match="is a file, not a folder"):
        run_pictures(runner, pictures, tmp_path / "out")


# --- names and shares ---------------------------------------------------------------------------


def test_result_names() -> None:
    files = ["a.jpg", "A.png", "b.png", "sub/b.png", "c.tar.png", "d.jpg", "d.png", "d.jpg.webp"]
    assert result_names([Path(file) for file in files]) == [
        *("a.jpg", "A.png", "b", "sub/b", "c.tar", "d.jpg", "d.png", "d.jpg-2"),
    ]


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[aAb.]{1,3}(\.png)?", fullmatch=True), unique=True, max_size=12))
def test_result_names_never_meet(files: list[str]) -> None:
    paths = [Path(file) for file in files if file.strip(".")]
    names = result_names(paths)
    assert len(names) == len(paths)
    assert len({name.casefold() for name in names}) == len(names)


def test_class_shares_leave_out_what_does_not_occur() -> None:
    labels = np.array([[0, 0, 2, 2], [2, 2, 2, 2]], np.uint8)
    assert class_shares(labels, ["road", "car", "sky"]) == {"road": 0.25, "sky": 0.75}
