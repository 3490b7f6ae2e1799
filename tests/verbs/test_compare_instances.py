"""`compare` on an instance bundle, from the command line's options to the files it leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from pointrend_deploy.bundle.folder import Bundle, sha256_of
from pointrend_deploy.bundle.manifest import MANIFEST, WeightsRecord, encode_manifest
from pointrend_deploy.cli import app
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.recipe.instance import InstanceClassesSpec, InstanceRecipe
from pointrend_deploy.verbs import compare as compare_instances
from pointrend_deploy.verbs.compare import compare_bundle, record
from tests.conftest import Exporter
from tests.fixtures import instance_runners, tiny_instance
from tests.fixtures.instance_data import annotation, drawn, scene
from tests.fixtures.instance_runners import Sides, changed, dropped

HW = (96, 128)
CITY = msgspec.structs.replace(
    tiny_instance.POINTREND, classes=InstanceClassesSpec(names=("car", "person", "rider"))
)
Answering = Callable[..., Path]


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Writes a bundle of the tiny model whose graph is answered by its reference in float64."""

    def write(
        mistake: instance_runners.Mistake | None = None,
        recipe: InstanceRecipe = tiny_instance.POINTREND,
    ) -> Path:
        folder = tmp_path / "bundle"
        folder.mkdir()
        tensors = tiny_instance.model(recipe).state_dict()
        weights = folder / "weights.safetensors"
        save_file(
            {k: v.contiguous() for k, v in tensors.items() if "num_batches" not in k}, str(weights)
        )
        digest = sha256_of(weights)
        made = msgspec.structs.replace(
            instance_runners.manifest(recipe),
            weights=WeightsRecord(
                file=weights.name,
                sha256=digest,
                included=True,
                source_sha256=digest,
                source_name="tiny.pth",
            ),
            files={weights.name: digest},
        )
        (folder / MANIFEST).write_bytes(encode_manifest(made))
        monkeypatch.setattr(
            compare_instances,
            "open_runner",
            lambda bundle, name, engine, precision: Sides(bundle.manifest, mistake),
        )
        return folder

    return write


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    instance_runners.pictures(folder, (HW, (60, 90)))
    return folder


def annotations(folder: Path, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """Objects on the two pictures; the model finds none of them, which is as good as any AP."""
    things = [scene(0, HW), [drawn(1, (60, 90), 30, 40, 20)]]
    rows = []
    for image_id, of_one in enumerate(things):
        for thing in of_one:
            rows.append({**annotation(len(rows), image_id, thing), "category_id": thing.label + 1})
    sizes = (HW, (60, 90))
    path = folder / "annotations.json"
    path.write_text(
        json.dumps(
            {
                "images": [
                    {"id": n, "file_name": f"{n}.png", "height": h, "width": w}
                    for n, (h, w) in enumerate(sizes)
                ],
                "annotations": rows,
                "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
            }
        )
    )
    return path


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_without_annotations(answering: Answering, images: Path) -> None:
    bundle = answering()
    code, said = run("compare", bundle, "--images", images)
    assert code == 0, said
    assert "matched" in said and "passed: onnx against torch, 2 pictures" in said
    assert "AP" not in said
    opened = Bundle.open(bundle)
    assert {"parity.json", "report.html", "report.md", "gallery.json"} <= set(opened.manifest.files)
    found = results.of_bundle(opened).runs["compare"]
    assert found.detections is not None and found.detections.matched > 10
    assert "Passed" in (bundle / "report.html").read_text()
    code, _ = run("report", bundle, "--out", bundle.parent / "again")
    assert (bundle.parent / "again" / "report.html").read_text() == (
        bundle / "report.html"
    ).read_text()


def test_with_coco_annotations(answering: Answering, images: Path, tmp_path: Path) -> None:
    path = annotations(tmp_path)
    code, said = run("compare", answering(), "--images", images, "--coco", path)
    assert code == 0, said
    assert "2 pictures of annotations.json: 5 objects, 0 crowds; COCO-style AP" in said
    for measure in ("box", "mask", "boundary"):
        for side in ("reference", "bundle"):
            assert any(line.split()[:2] == [measure, side] for line in said.splitlines())


def test_one_bad_polygon_is_said_everywhere_and_stops_nothing(
    answering: Answering, images: Path, tmp_path: Path
) -> None:
    path, bundle = annotations(tmp_path), answering()
    table = json.loads(path.read_text())
    table["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    path.write_text(json.dumps(table))
    code, said = run("compare", bundle, "--images", images, "--coco", path)
    assert code == 0, said
    assert "2 pictures of annotations.json: 4 objects" in said
    notes = results.of_bundle(Bundle.open(bundle)).runs["compare"].truth_notes
    name = f"annotation {table['annotations'][0]['id']} of "
    assert notes[0].startswith(f"1 polygon left out: {name}")
    assert notes[1].startswith(f"1 of 5 annotations left out, without a usable mask: {name}")
    for note in notes:
        assert f"truth: {note}\n" in said
        assert note in (bundle / "report.html").read_text()


def test_only_annotated_pictures_are_compared(
    answering: Answering, images: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (50, 50)).save(images / "other.png")
    path = annotations(tmp_path)
    result = compare_bundle(answering(), images, coco=path)
    assert sorted(row.name for row in result.run.detected_pictures) == ["0.png", "1.png"]


def test_with_cityscapes_instance_ids(answering: Answering, tmp_path: Path) -> None:
    pictures, labels = tmp_path / "leftImg8bit" / "ulm", tmp_path / "gtFine" / "ulm"
    for folder in (pictures, labels):
        folder.mkdir(parents=True)
    for number in range(2):
        ids = np.full(HW, 7, np.uint16)
        ids[20:60, 30:70] = 26000 + number
        ids[70:80, 5:25] = 24
        Image.fromarray(ids).save(labels / f"ulm_{number}_gtFine_instanceIds.png")
        picture = tiny_instance.picture(*HW, number)
        Image.fromarray(picture).save(pictures / f"ulm_{number}_leftImg8bit.png")
    result = compare_bundle(
        answering(recipe=CITY), tmp_path / "leftImg8bit", labels=tmp_path / "gtFine"
    )
    assert result
    assert result.run.truth is not None
    assert (result.run.truth.objects, result.run.truth.crowds) == (2, 2)
    assert len(result.run.accuracy) == 6


def test_another_folder_leaves_the_bundle_alone(
    answering: Answering, images: Path, tmp_path: Path
) -> None:
    bundle = answering()
    before = digests(bundle)
    out = tmp_path / "reports" / "today"
    code, said = run("compare", bundle, "--images", images, "--out", out)
    assert code == 0
    assert digests(bundle) == before
    assert str(out / "report.html") in said
    assert set(digests(out)) == {"parity.json", "report.html", "report.md", "gallery.json"}
    assert results.decode((out / "parity.json").read_bytes()).runs["compare"]


def test_a_failed_gate_ends_with_3_and_is_recorded(answering: Answering, images: Path) -> None:
    bundle = answering(dropped(0))
    code, said = run("compare", bundle, "--images", images)
    assert code == 3
    assert "FAILED" in said and "unexplained: 0: " in said
    assert not results.of_bundle(Bundle.open(bundle)).runs["compare"]
    assert "✗ Failed" in (bundle / "report.html").read_text()


def test_answers_that_are_no_numbers_are_a_failed_gate(answering: Answering, images: Path) -> None:
    bundle = answering(changed("boxes", (0, 0, 0), lambda x: np.nan))
    code, said = run("compare", bundle, "--images", images)
    assert code == 3
    assert "NaN or infinite" in said


def test_a_picture_that_cannot_be_read_ends_with_1(
    answering: Answering, images: Path, tmp_path: Path
) -> None:
    path = annotations(tmp_path)
    (images / "1.png").write_bytes(b"torn")
    code, said = run("compare", answering(), "--images", images, "--coco", path)
    assert code == 1
    assert "skipped 1.png" in said
    assert "1 picture of annotations.json: 4 objects" in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda images, path: (images / "1.png").unlink(), "1 of 2 pictures .*: 1.png"),
        (lambda images, path: path.write_text("{"), "is not JSON"),
        (lambda images, path: path.unlink(), "cannot read the annotations"),
        (
            lambda images, path: path.write_text(
                path.read_text().replace('"name": "b"', '"name": "z"')
            ),
            "category 2 is 'z', in the recipe tiny it is 'b'",
        ),
    ],
)
def test_bad_annotations_end_before_the_work_and_lose_nothing(
    answering: Answering,
    images: Path,
    tmp_path: Path,
    spoil: Callable[[Path, Path], Any],
    words: str,
) -> None:
    bundle, path = answering(), annotations(tmp_path)
    before = digests(bundle)
    spoil(images, path)
    with pytest.raises(DeployError, match=words):
        compare_bundle(bundle, images, coco=path)
    assert digests(bundle) == before


def test_truths_that_do_not_go_together(
    answering: Answering, exported: Exporter, images: Path, tmp_path: Path
) -> None:
    bundle, path = answering(), annotations(tmp_path)
    with pytest.raises(UsageError, match="two truths"):
        compare_bundle(bundle, images, coco=path, labels=images)
    with pytest.raises(DeployError, match="finds a, b, c, which Cityscapes does not annotate"):
        compare_bundle(bundle, images, labels=images)
    with pytest.raises(UsageError, match="is a semantic bundle; --coco is for instance bundles"):
        compare_bundle(exported(), images, coco=path)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    answering: Answering, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = answering()
    (tmp_path / "file").write_text("x")

    def never(*_: object) -> None:
        raise AssertionError("the work had begun")

    monkeypatch.setattr(compare_instances, "open_runner", never)
    with pytest.raises(DeployError, match="is a file, not a folder"):
        compare_bundle(bundle, images, out=tmp_path / "file" / "below")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(DeployError, match="nothing can be written") as caught:
        compare_bundle(bundle, images)
    assert "--out" in caught.value.hint


@pytest.mark.usefixtures("without_evaluator")
def test_without_the_evaluator_annotations_are_refused_first(
    answering: Answering, images: Path, tmp_path: Path
) -> None:
    bundle, path = answering(), annotations(tmp_path)
    with pytest.raises(DeployError, match="needs faster-coco-eval"):
        compare_bundle(bundle, images, coco=path)
    assert compare_bundle(bundle, images)


def test_a_record_the_disk_refuses_leaves_the_bundle_as_it_was(
    answering: Answering, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointrend_deploy import atomic

    bundle = answering()
    result = compare_bundle(bundle, images)
    before = digests(bundle)

    def full(*_: object) -> None:
        raise DeployError("the disk is full")

    monkeypatch.setattr(atomic, "replace_together", full)
    with pytest.raises(DeployError, match="disk is full"):
        record(result)
    assert digests(bundle) == before
