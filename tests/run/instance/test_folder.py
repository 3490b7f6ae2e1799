"""A folder through an instance bundle: COCO results, overlays, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.pictures.canvas import from_rgb
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.instance.detections import image_ids
from pointrend_deploy.run.instance.task import InstanceResult
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.runner import BundleRunner
from pointrend_deploy.run.writer import PictureOptions
from pointrend_deploy.verbs.run import summary
from tests.fixtures.tiny_bundle import save_pictures, write_tiny_bundle
from tests.fixtures.tiny_instances import bright_picture, things_recipe, write_things_bundle

IDS = things_recipe().category_ids
PICTURES = {
    "a.png": bright_picture(64, 128, (0, 3), 1),
    "b.png": bright_picture(50, 40, (), 2),
    "c.png": bright_picture(301, 607, (0, 1, 2, 3), 3),
}


@pytest.fixture
def runner(tmp_path: Path) -> BundleRunner:
    return open_runner(write_things_bundle(tmp_path / "bundle"), "onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = save_pictures(tmp_path / "pictures", PICTURES)
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def detections_in(out: Path) -> list[dict[str, Any]]:
    table = json.loads((out / "detections.json").read_text())
    assert isinstance(table, list)
    return table


def instances(runner: BundleRunner, rgb: Any) -> Any:
    return runner(from_rgb(rgb, runner.bundle.manifest))["instances"]  # type: ignore[typeddict-item]


# --- the run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "batch"), [("single", 1), ("single", 2), ("split", 2)])
def test_detections_are_the_runners_instances(
    tmp_path: Path, pictures: Path, runner: BundleRunner, layout: str, batch: int
) -> None:
    bundle = write_things_bundle(tmp_path / "other", layout=layout, batch=batch)
    out = tmp_path / "out"
    results = run_pictures(open_runner(bundle, "onnx"), pictures, out)
    assert not results and [item.file for item in results.skipped] == ["bad.png"]
    assert results.task == "instance" and results.complete
    assert sorted(p.name for p in out.iterdir()) == ["detections.json", "overlays", "results.json"]
    table = detections_in(out)
    assert len(table) == 6
    for row in results.pictures:
        assert isinstance(row, InstanceResult)
        expected = instances(runner, PICTURES[row.file])
        found = [item for item in table if item["image_id"] == row.image_id]
        assert row.detections == len(found) == len(expected)
        assert row.picture_hw == PICTURES[row.file].shape[:2]
        for index, item in enumerate(found):
            assert set(item) == {"image_id", "category_id", "bbox", "score", "segmentation"}
            assert item["category_id"] == IDS[expected.classes[index]]
            x1, y1, x2, y2 = expected.boxes[index]
            assert np.allclose(item["bbox"], [x1, y1, x2 - x1, y2 - y1], atol=1e-4)
            assert item["score"] == pytest.approx(float(expected.scores[index]), abs=1e-6)
            mask = coco.decode(item["segmentation"])
            assert np.array_equal(mask, expected.mask(index)) and mask.any()
    assert sum(item["score"] < 0.75 for item in table)  # drawn or not, all are there


def test_results_json_says_it_all(tmp_path: Path, runner: BundleRunner, pictures: Path) -> None:
    run_pictures(runner, pictures, tmp_path / "out")
    table = json.loads((tmp_path / "out" / "results.json").read_text())
    assert table["task"] == "instance" and table["complete"] is True
    first = table["pictures"][0]
    assert first["file"] == "a.png" and first["image_id"] == 1
    assert first["overlay"] == "overlays/a.jpg"
    assert first["detections"] == 2 and first["class_counts"] == {"cat": 2}
    assert set(first["ms"]) == {"read", "prepare", "infer", "instances", "write"}
    assert table["pictures"][1]["class_counts"] == {} and table["pictures"][1]["detections"] == 0
    assert table["pictures"][2]["class_counts"] == {"cat": 2, "traffic light": 1, "bird": 1}
    # bad.png was the third file of four: its id is not given to another
    assert [item["image_id"] for item in table["pictures"]] == [1, 2, 4]


def test_pycocotools_takes_the_results_as_they_are(
    tmp_path: Path, runner: BundleRunner, pictures: Path, capsys: Any
) -> None:
    """Ground truth made of the very same things scores 1; shifted things score less."""
    results = run_pictures(runner, pictures, tmp_path / "out")
    table = detections_in(tmp_path / "out")
    truth = {
        "images": [
            {"id": row.image_id, "height": row.picture_hw[0], "width": row.picture_hw[1]}
            for row in results.pictures
            if isinstance(row, InstanceResult)
        ],
        "categories": [{"id": number, "name": str(number)} for number in IDS],
        "annotations": [
            {
                **{key: item[key] for key in ("image_id", "category_id", "bbox", "segmentation")},
                "id": number + 1,
                "iscrowd": 0,
                "area": float(coco.area(item["segmentation"])),
            }
            for number, item in enumerate(table)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    truths = COCO(str(tmp_path / "truth.json"))

    def ap(file: Path, kind: str) -> float:
        score = COCOeval(truths, truths.loadRes(str(file)), kind)
        score.evaluate()
        score.accumulate()
        score.summarize()
        return float(score.stats[0])

    for kind in ("bbox", "segm"):
        assert ap(tmp_path / "out" / "detections.json", kind) == pytest.approx(1)
    empty = coco.encode(np.zeros((301, 607), np.uint8, "F"))["counts"].decode()
    for item in table[2:]:
        item["segmentation"]["counts"] = empty
        item["bbox"][0] += 100
    (tmp_path / "worse.json").write_text(json.dumps(table))
    for kind in ("bbox", "segm"):
        assert ap(tmp_path / "worse.json", kind) < 0.7


def test_drawing_changes_overlays_only(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    outs = {above: tmp_path / str(above) for above in (None, 0.0, 0.5, 1.0)}
    for above, out in outs.items():
        run_pictures(runner, pictures / "c.png", out, PictureOptions(draw_above=above))
    tables = [detections_in(out) for out in outs.values()]
    assert len(tables[0]) == 4 and all(table == tables[0] for table in tables)
    drawn = [
        np.asarray(Image.open(out / "overlays" / "c.jpg")).astype(int) for out in outs.values()
    ]
    assert np.array_equal(drawn[0], drawn[2]) and drawn[0].shape == (301, 607, 3) != (0, 0, 3)
    plain = np.abs(drawn[3] - PICTURES["c.png"].astype(int)).mean()
    assert plain < 8 < np.abs(drawn[1] - PICTURES["c.png"].astype(int)).mean()
    run_pictures(runner, pictures / "c.png", tmp_path / "none", PictureOptions(overlays=False))
    assert not (tmp_path / "none" / "overlays").exists()


def test_scores_to_draw_by_must_make_sense(tmp_path: Path, runner: BundleRunner) -> None:
    Image.fromarray(PICTURES["a.png"]).save(tmp_path / "a.png")
    for wrong in (-0.1, 1.01, float("nan")):
        with pytest.raises(UsageError, match="from 0 to 1"):
            options = PictureOptions(draw_above=wrong)
            run_pictures(runner, tmp_path / "a.png", tmp_path / "out", options)
    semantic = open_runner(write_tiny_bundle(tmp_path / "semantic"), "onnx")
    with pytest.raises(UsageError, match="no scores"):
        run_pictures(semantic, tmp_path / "a.png", tmp_path / "out", PictureOptions(draw_above=0.5))
    assert not (tmp_path / "out").exists()


def test_nothing_found_is_an_empty_list(tmp_path: Path, runner: BundleRunner) -> None:
    Image.fromarray(PICTURES["b.png"]).save(tmp_path / "b.png")
    results = run_pictures(runner, tmp_path / "b.png", tmp_path / "out")
    assert results and detections_in(tmp_path / "out") == []
    assert "0 detections, none in 1 picture" in summary(results, tmp_path / "out")


def test_only_bad_pictures_leave_no_detections(tmp_path: Path, runner: BundleRunner) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    results = run_pictures(runner, tmp_path / "bad.png", tmp_path / "out")
    assert not results and not (tmp_path / "out" / "detections.json").exists()
    assert "no picture could be read" in summary(results, tmp_path / "out")


# --- ids ----------------------------------------------------------------------------------------


def test_image_ids() -> None:
    def ids(*names: str) -> list[int]:
        return image_ids([Path(name) for name in names])

    assert ids("000000000139.jpg", "x/000000581781.jpg") == [139, 581781]
    assert ids("1.jpg", "01.png") == [1, 2]  # the same number twice: places
    assert ids("7.jpg", "b.jpg") == [1, 2]
    assert ids("7.jpg", "1" * 16 + ".jpg") == [1, 2]  # beyond what JSON readers keep
    assert ids("७.jpg", "²5.jpg") == [1, 2]
    assert ids("7.jpg") == [7] and ids() == []


def test_numbers_of_files_are_the_ids(tmp_path: Path, runner: BundleRunner) -> None:
    folder = tmp_path / "coco"
    folder.mkdir()
    for number, picture in zip((139, 285), PICTURES.values(), strict=False):
        Image.fromarray(picture).save(folder / f"{number:012}.png")
    results = run_pictures(runner, folder, tmp_path / "out")
    assert [row.image_id for row in results.pictures] == [139, 285]  # type: ignore[union-attr]
    assert {item["image_id"] for item in detections_in(tmp_path / "out")} == {139}


# --- nothing is lost ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["detections.json", "results.json", "overlays/a.jpg"])
def test_files_no_run_wrote_are_never_replaced(
    tmp_path: Path, runner: BundleRunner, pictures: Path, name: str
) -> None:
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b'[{"mine": 1}]')
    with pytest.raises(DeployError, match="was not written by a run"):
        run_pictures(runner, pictures, tmp_path / "out")
    assert mine.read_bytes() == b'[{"mine": 1}]'
    assert not list((tmp_path / "out").rglob("*partial*"))


def test_a_semantic_run_does_not_vouch_for_detections(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    """Nor an instance run for label maps: the other task did not write them."""
    semantic = open_runner(write_tiny_bundle(tmp_path / "semantic"), "onnx")
    run_pictures(semantic, pictures, tmp_path / "one")
    (tmp_path / "one" / "detections.json").write_text("[]")
    with pytest.raises(DeployError, match=r"detections.json is there already"):
        run_pictures(runner, pictures, tmp_path / "one")
    run_pictures(runner, pictures, tmp_path / "two")
    (tmp_path / "two" / "labels").mkdir()
    with pytest.raises(DeployError, match="labels is there already"):
        run_pictures(semantic, pictures, tmp_path / "two")


def test_a_second_run_replaces_the_first(
    tmp_path: Path, runner: BundleRunner, pictures: Path
) -> None:
    out = tmp_path / "out"
    run_pictures(runner, pictures, out)
    run_pictures(runner, pictures / "a.png", out)
    assert len(detections_in(out)) == 2
    assert (out / "overlays" / "c.jpg").is_file()


def test_a_run_that_stops_keeps_what_is_done(
    tmp_path: Path, runner: BundleRunner, pictures: Path, monkeypatch: Any
) -> None:
    (pictures / "bad.png").unlink()
    out = tmp_path / "out"
    infer, calls = runner._infer, []

    def fail_at(number: int) -> None:
        calls.clear()

        def failing(batch: Any) -> Any:
            calls.append(1)
            found = infer(batch)
            if len(calls) == number:
                found["boxes"][:] = np.nan
            return found

        monkeypatch.setattr(runner, "_infer", failing)

    fail_at(1)
    (pictures / "b.png").unlink()
    with pytest.raises(DeployError, match="not finite"):
        run_pictures(runner, pictures, out)
    assert not (out / "detections.json").exists()
    fail_at(2)
    with pytest.raises(DeployError, match="not finite") as caught:
        run_pictures(runner, pictures, out)
    assert "1 of 2 pictures were done and stay" in caught.value.hint
    table = json.loads((out / "results.json").read_text())
    assert table["complete"] is False and len(table["pictures"]) == 1
    assert len(detections_in(out)) == 2
    fail_at(1)
    with pytest.raises(DeployError):
        run_pictures(runner, pictures, out)
    assert len(detections_in(out)) == 2  # not replaced by nothing


# --- the terminal -------------------------------------------------------------------------------


def test_summary_counts_detections(tmp_path: Path, runner: BundleRunner, pictures: Path) -> None:
    out = tmp_path / "out"
    text = summary(run_pictures(runner, pictures, out), out)
    assert "3 pictures with runner onnx: detections in" in text and "label maps" not in text
    assert str(out / "detections.json") in text and str(out / "overlays") in text
    assert "6 detections, none in 1 picture: 4 cat, 1 traffic light, 1 bird" in text
    assert "skipped bad.png" in text


def test_the_command_line(tmp_path: Path, pictures: Path) -> None:
    from typer.testing import CliRunner

    from pointrend_deploy.cli import app

    bundle = str(write_things_bundle(tmp_path / "bundle", layout="split"))
    call = ["run", bundle, str(pictures), "--out", str(tmp_path / "out"), "--draw-above"]
    done = CliRunner().invoke(app, [*call, "0.9"])
    assert done.exit_code == 1 and "6 detections" in done.stdout  # one picture was skipped
    assert len(detections_in(tmp_path / "out")) == 6
    assert CliRunner().invoke(app, [*call, "1.5"]).exit_code == 2
