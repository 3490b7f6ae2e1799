"""A run over several sources: nothing is overwritten, times are said, bundles are left alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pointrend_deploy.cli import app
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.latency import latency_of
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.results import result_names
from pointrend_deploy.run.runner import BundleRunner
from pointrend_deploy.verbs.run import summary
from tests.fixtures.tiny_bundle import colour_picture, save_pictures, write_tiny_bundle
from tests.fixtures.tiny_instances import bright_picture, write_things_bundle
from tests.run.test_folder import labels_in
from tests.run.test_runner import expected_labels

NAMES = ("left/1.png", "left/2.png", "right/1.png", "right/more/1.png", "3.png")
PICTURES = {name: colour_picture(32, 48, seed) for seed, name in enumerate(NAMES)}


@pytest.fixture
def runner(tmp_path: Path) -> BundleRunner:
    return open_runner(write_tiny_bundle(tmp_path / "bundle"), "onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return save_pictures(tmp_path / "pictures", PICTURES)


# --- several sources ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "recursive", "expected"),
    [
        (("left", "right"), False, ("left/1", "left/2", "right/1")),
        (("left/1.png", "right/1.png"), False, ("left/1", "right/1")),
        (("left", "right", "3.png"), True, ("left/1", "left/2", "right/1", "right/more/1", "3")),
        (("*/1.png",), False, ("left/1", "right/1")),
        (("right/**/1.png",), False, ("1", "more/1")),
    ],
)
def test_every_picture_has_results_of_its_own(
    tmp_path: Path, pictures: Path, sources: Any, recursive: bool, expected: tuple[str, ...]
) -> None:
    bundle = str(write_tiny_bundle(tmp_path / "bundle"))
    given = [str(pictures / source) for source in sources]
    call = ["run", bundle, *given, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*call, "--recursive"] if recursive else call)
    assert done.exit_code == 0, done.output
    table = json.loads((tmp_path / "out" / "results.json").read_text())
    assert table["sources"] == given
    rows = {row["labels"]: row["file"] for row in table["pictures"]}
    assert list(rows) == [f"labels/{name}.png" for name in expected]
    for labels, file in rows.items():
        picture = Path(table["source"]) / file
        rgb = PICTURES[picture.relative_to(pictures).as_posix()]
        assert np.array_equal(
            labels_in(tmp_path / "out" / labels), expected_labels(rgb[:, :, ::-1])
        )
        assert (tmp_path / "out" / f"overlays/{Path(file).with_suffix('.jpg')}").is_file()


def test_instances_of_pictures_of_one_name_stay_apart(tmp_path: Path) -> None:
    runner = open_runner(write_things_bundle(tmp_path / "bundle"), "onnx")
    save_pictures(
        tmp_path,
        {f"{side}/7.png": bright_picture(32, 64, [place]) for side, place in (("a", 0), ("b", 3))},
    )
    results = run_pictures(runner, [tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert [row.file for row in results.pictures] == ["a/7.png", "b/7.png"]
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len({item["image_id"] for item in found}) == 2


def test_names_that_cannot_stand_side_by_side_are_refused(
    tmp_path: Path, runner: BundleRunner
) -> None:
    folder = save_pictures(
        tmp_path / "in", {name: colour_picture(8, 8) for name in ("x.jpg", "X.png/y.png")}
    )
    with pytest.raises(DeployError, match=r"the results of x and X\.png/y cannot stand side"):
        run_pictures(runner, [folder / "x.jpg", folder / "X.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert result_names([Path("x.jpg"), Path("x.d/y.png")]) == ["x", "x.d/y"]


def test_one_missing_source_stops_the_run_before_it_writes(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    for wrong in (pictures / "gone", pictures / "*.jpg"):
        with pytest.raises(DeployError, match=r"no such picture|matches nothing"):
            run_pictures(runner, [pictures / "left", wrong], tmp_path / "out")
    with pytest.raises(DeployError, match="mixed with the pictures"):
        run_pictures(runner, [pictures / "left", pictures / "right"], pictures / "right")
    with pytest.raises(DeployError, match="mixed with the pictures"):
        options = ["run", str(runner.bundle.path), str(pictures), "--recursive"]
        out = ["--out", str(pictures / "right" / "more")]
        CliRunner().invoke(app, options + out, catch_exceptions=False)
    assert not (tmp_path / "out").exists()
    assert not (pictures / "right" / "more" / "labels").exists()


# --- bundles are no place for results -----------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("bundle", "is a bundle"),
        ("bundle/results", "lies in the bundle"),
        ("other", "is a bundle"),
        ("other/a/b", "lies in the bundle"),
        ("link", "is a bundle"),
        (".", "contains the bundle"),
        ("deep", "contains the bundle"),
    ],
)
def test_results_never_go_into_a_bundle(
    tmp_path: Path, pictures: Path, out: str, words: str
) -> None:
    write_tiny_bundle(tmp_path / "other")
    bundle = write_tiny_bundle(tmp_path / ("deep/er/bundle" if out == "deep" else "bundle"))
    (tmp_path / "link").symlink_to(tmp_path / "other")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DeployError, match=words) as caught:
        run_pictures(open_runner(bundle, "onnx"), pictures, tmp_path / out)
    assert "choose another --out" in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_another_manifest_is_no_bundle(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"schema": 1, "name": "a web page"}')
    assert run_pictures(runner, pictures, tmp_path / "out")


# --- times --------------------------------------------------------------------------------------

TIMES = [
    {"read": 90.0, "prepare": ms, "infer": 10 * ms, "labels": 1.0, "write": 50.0}
    for ms in (70.0, 60.0, 1.0, 2.0, 4.0)
]


def test_medians_leave_out_the_warm_up_and_the_files() -> None:
    found = latency_of(TIMES, 2)
    assert found is not None and (found.pictures, found.warm_up) == (3, 2)
    assert found.steps == {"prepare": 2.0, "infer": 20.0, "labels": 1.0} and found.ms == 23.0
    assert found.line("onnx", "fp32") == (
        "median 23.0 ms a picture over 3 pictures, onnx runner, FP32: 2.0 ms fit, 20.0 ms graph, "
        "1.0 ms labels; not counted: the first 2 pictures (warm-up), reading and writing files"
    )


def test_a_simulated_precision_is_no_engines_speed() -> None:
    found = latency_of(TIMES, 2)
    assert found is not None
    for precision in ("fp16", "int8"):
        said = f"onnx runner, {precision.upper()} simulated, not at an engine's speed: 2.0 ms fit"
        assert said in found.line("onnx", precision)
        assert "simulated" not in found.line("tensorrt", precision)


def test_a_single_batch_is_said_to_have_its_warm_up_in_it() -> None:
    found = latency_of(TIMES[:1], 1)
    assert found is not None and (found.pictures, found.warm_up, found.ms) == (1, 0, 771.0)
    line = found.line("torch", "fp32")
    assert "median" not in line and "warm-up included, torch runner, FP32: 70.0 ms fit" in line
    assert latency_of([], 0) is None


@pytest.mark.parametrize("batch", [1, 2])
def test_the_last_line_of_a_run_is_its_latency(tmp_path: Path, pictures: Path, batch: int) -> None:
    runner = open_runner(write_tiny_bundle(tmp_path / "bundle", batch=batch), "onnx")
    results = run_pictures(runner, [pictures / "left", pictures / "right"], tmp_path / "out")
    line = summary(results, tmp_path / "out").splitlines()[-1]
    table = json.loads((tmp_path / "out" / "results.json").read_text())
    counted = [row["ms"] for row in table["pictures"][batch:]]
    steps = ("prepare", "infer", "labels")
    expected = median(sum(ms[step] for step in steps) for ms in counted)
    assert table["latency"]["ms"] == pytest.approx(expected, abs=0.002)
    assert table["latency"]["pictures"] == 3 - batch and table["precision"] == "fp32"
    said = re.fullmatch(r"median ([\d.]+) ms a picture over (\d) pictures?, onnx runner.*", line)
    assert said is not None and int(said[2]) == 3 - batch
    assert float(said[1]) == pytest.approx(expected, abs=0.06)
    assert f"the first {'picture' if batch == 1 else '2 pictures'} (warm-up)" in line


def test_no_latency_where_nothing_ran(tmp_path: Path, runner: BundleRunner) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    results = run_pictures(runner, tmp_path / "bad.png", tmp_path / "out")
    assert results.latency is None and " ms" not in summary(results, tmp_path / "out")


# --- the command line ---------------------------------------------------------------------------


def test_conf_is_another_name_of_draw_above(tmp_path: Path) -> None:
    bundle = str(write_things_bundle(tmp_path / "bundle"))
    picture = save_pictures(tmp_path / "in", {"a.png": bright_picture(64, 128, [0, 3])})
    drawn = {}
    for name, value in (("--draw-above", "1"), ("--conf", "1"), ("--conf", "0")):
        out = tmp_path / (name + value)
        call = ["run", bundle, str(picture), "--out", str(out), name, value]
        assert CliRunner().invoke(app, call).exit_code == 0
        drawn[name + value] = (out / "overlays" / "a.jpg").read_bytes()
    assert drawn["--draw-above1"] == drawn["--conf1"] != drawn["--conf0"]


def test_sub_folders_that_were_left_are_counted(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    results = run_pictures(runner, [pictures / "left", pictures / "right"], tmp_path / "out")
    assert "not searched: 1 sub-folder (--recursive" in summary(results, tmp_path / "out")
