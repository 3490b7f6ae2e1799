"""Instance bundles in ONNX Runtime: one graph or two, the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pycocotools import mask as coco

from pointrend_deploy.bundle.folder import DETECTOR, MASKS, MODEL
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.canvas import batch_of, from_rgb
from pointrend_deploy.run.instance.instances import OUTPUTS, Instances
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.runner import BundleRunner
from tests.fixtures.tiny_bundle import write_bundle
from tests.fixtures.tiny_instances import (
    bright_picture,
    expected_outputs,
    things_graphs,
    things_manifest,
    write_things_bundle,
)

LAYOUTS = ("single", "split")
PICTURES = [
    bright_picture(32, 64, (0, 3), 1),
    bright_picture(50, 40, (), 2),
    bright_picture(100, 230, (0, 1, 2, 3), 3),
]


def opened(path: Path, **options: Any) -> BundleRunner:
    return open_runner(write_things_bundle(path, **options), "onnx")


def same(one: Instances, other: Instances) -> bool:
    return (
        np.allclose(one.boxes, other.boxes, atol=1e-5)
        and np.allclose(one.scores, other.scores, atol=1e-6)
        and np.array_equal(one.classes, other.classes)
        and np.array_equal(one.masks, other.masks)
    )


def instances(runner: BundleRunner, images: list[Any]) -> list[Instances]:
    return list(runner([from_rgb(image, runner.bundle.manifest) for image in images])["instances"])


# --- the graph's outputs ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("masks", ["prob", "prob-u8", "logits"])
def test_infer_gives_the_five_outputs(tmp_path: Path, layout: str, batch: int, masks: str) -> None:
    runner = opened(tmp_path, layout=layout, batch=batch, masks=masks)
    manifest = runner.bundle.manifest
    fitted = [runner.prepare(from_rgb(image, manifest)) for image in PICTURES[:batch]]
    inputs = batch_of(fitted, manifest)
    found, expected = runner.infer(inputs), expected_outputs(inputs, manifest)
    assert list(found)[:5] == list(OUTPUTS)
    assert found["num_detections"].tolist() == [2, 0][:batch]
    for name in ("num_detections", "boxes", "scores", "classes"):
        assert found[name].dtype == expected[name].dtype
        assert np.allclose(found[name], expected[name], atol=1e-5)
    wanted = expected["masks"]
    if masks == "prob-u8":
        assert found["masks"].dtype == np.uint8
        assert np.abs(found["masks"] - (255 * wanted)).max() <= 0.51
    elif masks == "prob":
        assert np.allclose(found["masks"], wanted, atol=1e-6)
    else:
        kept = wanted > 0
        logits = np.log(wanted[kept] / (1 - wanted[kept]))
        assert np.allclose(found["masks"][kept], logits, atol=1e-4)
        assert not found["masks"][~kept].any()
    assert found["masks"][0, :2].any(axis=(1, 2)).all() and not found["masks"][0, 2:].any()


def test_further_outputs_come_after_the_five_and_as_stages(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        runner = opened(tmp_path / layout, layout=layout, stages=("p2",), batch=2)
        manifest = runner.bundle.manifest
        fitted = [runner.prepare(from_rgb(image, manifest)) for image in PICTURES[:2]]
        assert list(runner.infer(batch_of(fitted, manifest))) == [*OUTPUTS, "p2"]
        prediction = runner(from_rgb(PICTURES[0], manifest))
        assert set(prediction) == {"instances", "stages"}
        assert prediction["stages"]["p2"].shape == (1, 8, 8)  # type: ignore[index]
    assert set(opened(tmp_path / "plain")(PICTURES[0])) == {"instances"}


@pytest.mark.parametrize("detections", [1, 3])
def test_fewer_rows_than_things_keep_the_best(tmp_path: Path, detections: int) -> None:
    for layout in LAYOUTS:
        runner = opened(tmp_path / layout, layout=layout, detections=detections)
        everything = opened(tmp_path / f"{layout}4", layout=layout)
        few, many = (instances(r, PICTURES[2:])[0] for r in (runner, everything))
        assert len(few) == detections and len(many) == 4
        assert np.array_equal(few.scores, many.scores[:detections])
        assert np.array_equal(few.masks, many.masks[:detections])


# --- predictions --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lists_of_pictures(tmp_path: Path, batch: int, layout: str) -> None:
    runner = opened(tmp_path / "b", batch=batch, layout=layout)
    one_by_one = opened(tmp_path / "one")
    found = instances(runner, PICTURES)
    assert [len(item) for item in found] == [2, 0, 4]
    for image, item in zip(PICTURES, found, strict=True):
        assert item.hw == image.shape[:2]
        assert same(item, instances(one_by_one, [image])[0])
    assert runner([]) == {"instances": []}


def test_boxes_and_masks_lie_where_the_picture_is_bright(tmp_path: Path) -> None:
    runner = opened(tmp_path)
    (found,) = instances(runner, [PICTURES[2]])
    assert sorted(found.classes.tolist()) == [0, 0, 1, 2]
    height, width = found.hw
    for index, (x1, y1, x2, y2) in enumerate(found.boxes):
        mask = found.mask(index)
        rows, columns = mask.nonzero()
        assert columns.min() >= x1 - 1 and columns.max() < x2 + 1
        assert rows.min() >= y1 - 1 and rows.max() < y2 + 1
        assert PICTURES[2][mask].mean() > 150
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert np.array_equal(coco.decode(dict(found.rle(index))), mask)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dark_picture_has_nothing(tmp_path: Path, layout: str) -> None:
    runner = opened(tmp_path, layout=layout)
    found = runner(np.zeros((20, 30, 3), np.uint8))["instances"]  # type: ignore[typeddict-item]
    assert len(found) == 0 and found.masks.shape == (0, 20, 30)


def test_a_picture_of_one_pixel(tmp_path: Path) -> None:
    runner = opened(tmp_path)
    for value, count in ((0, 0), (255, 2)):  # it fills the left half of the canvas
        (found,) = instances(runner, [np.full((1, 1, 3), value, np.uint8)])
        assert len(found) == count and found.masks.shape == (count, 1, 1)


# --- what cannot be right -----------------------------------------------------------------------


def test_answers_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    runner = opened(tmp_path)
    picture = runner.prepare(PICTURES[0])
    outputs = runner.infer(batch_of([picture], runner.bundle.manifest))
    runner.finish(outputs, 0, picture)
    bad = {**outputs, "num_detections": np.array([5])}
    with pytest.raises(DeployError, match="5 detections in 4 rows"):
        runner.finish(bad, 0, picture)
    with pytest.raises(DeployError, match="not finite"):
        runner.finish({**outputs, "boxes": outputs["boxes"] + np.nan}, 0, picture)


def test_a_detector_that_counts_too_far_is_refused_before_the_masks(tmp_path: Path) -> None:
    runner = opened(tmp_path, layout="split")
    batch = batch_of([runner.prepare(PICTURES[0])], runner.bundle.manifest)
    detector, masks = runner.calls  # type: ignore[attr-defined]

    def counting(inputs: dict[str, Any]) -> dict[str, Any]:
        return {**detector(inputs), "num_detections": np.array([9])}

    runner.calls = [counting, masks]  # type: ignore[attr-defined]
    with pytest.raises(DeployError, match="9 detections in 4 rows"):
        runner.infer(batch)


def test_extents_that_do_not_lie_on_the_canvas_are_refused(tmp_path: Path) -> None:
    runner = opened(tmp_path)
    batch = batch_of([runner.prepare(PICTURES[0])], runner.bundle.manifest)
    for wrong in ([[0, 10]], [[33, 10]], [[10, 65]], [[-1, 1]]):
        with pytest.raises(DeployError, match="extent"):
            runner.infer({**batch, "extent": np.array(wrong)})
    with pytest.raises(DeployError, match="takes the inputs"):
        runner.infer({"image": batch["image"]})


def test_graphs_that_are_not_the_manifests_are_refused(tmp_path: Path) -> None:
    single, split = things_manifest(), things_manifest(layout="split")
    cases = {
        "detections": (single, things_manifest(detections=3), MODEL, "outputs"),
        "form": (single, things_manifest(masks="prob-u8"), MODEL, "outputs"),
        "mask form": (split, things_manifest(layout="split", masks="prob-u8"), MASKS, "outputs"),
        "detector": (split, things_manifest(layout="split", batch=2), DETECTOR, "inputs"),
    }
    for name, (manifest, other, file, what) in cases.items():
        files = {**things_graphs(manifest), file: things_graphs(other)[file]}
        with pytest.raises(DeployError, match=f"the {what} of .*{file} are not those"):
            open_runner(write_bundle(tmp_path / name, manifest, files), "onnx")
        assert open_runner(write_bundle(tmp_path / name, manifest, things_graphs(manifest)), "onnx")


def test_a_mask_graph_of_fixed_size_is_refused(tmp_path: Path) -> None:
    manifest = things_manifest(layout="split")
    assert manifest.instance is not None
    fixed = msgspec.structs.replace(
        manifest.instance,
        mask_inputs=tuple(
            msgspec.structs.replace(spec, shape=(4 if spec.shape[0] == -1 else 1, *spec.shape[1:]))
            for spec in manifest.instance.mask_inputs
        ),
    )
    other = msgspec.structs.replace(manifest, instance=fixed)
    files = {**things_graphs(manifest), MASKS: things_graphs(other)[MASKS]}
    with pytest.raises(DeployError, match=r"inputs of .*masks.onnx are not those"):
        open_runner(write_bundle(tmp_path, manifest, files), "onnx")


def test_the_mask_graph_is_needed_and_checked(tmp_path: Path) -> None:
    path = write_things_bundle(tmp_path, layout="split")
    data = bytearray((path / MASKS).read_bytes())
    data[len(data) // 2] ^= 1
    (path / MASKS).write_bytes(data)
    with pytest.raises(DeployError, match="SHA-256"):
        open_runner(path, "onnx")
    (path / MASKS).unlink()
    with pytest.raises(DeployError, match=f"has no {MASKS}"):
        open_runner(path, "onnx")


def test_weights_are_not_for_onnx(tmp_path: Path) -> None:
    path = write_things_bundle(tmp_path, layout="split")
    with pytest.raises(DeployError, match=f"takes its weights from {DETECTOR}"):
        open_runner(path, "onnx", weights=tmp_path / "w.pkl")
