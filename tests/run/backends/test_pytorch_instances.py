"""The reference instance model as a runner: the bundle's canvas, outputs and detections."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save

from pointrend_deploy.bundle.folder import WEIGHTS, Bundle
from pointrend_deploy.bundle.manifest import TensorSpec
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.pictures.canvas import batch_of, resize_image
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.run.backends.pytorch import TorchRunner
from pointrend_deploy.run.instance.instances import OUTPUTS
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.semantic.reference import SemanticReference
from tests.fixtures.tiny_bundle import weights_record, write_bundle
from tests.fixtures.tiny_instance import POINTREND, STANDARD, changed, model, picture
from tests.fixtures.tiny_instances import things_manifest

CANVAS = (96, 128)
D = POINTREND.box_head.detections
CHOOSY = changed(POINTREND, "box_head", score_threshold=0.4)
"""Finds 20 to 30 things, not as many as there may be."""


@pytest.fixture(scope="module")
def reference() -> InstanceModel:
    return model(POINTREND)


def weights_of(made: InstanceModel) -> bytes:
    return save({name: value.contiguous() for name, value in made.state_dict().items()})


def make_bundle(
    path: Path, made: InstanceModel, recipe: InstanceRecipe = POINTREND, **options: Any
) -> Bundle:
    weights = weights_of(made)
    record = weights_record(weights)
    further = options.pop("further", ())
    chosen = {"size_hw": CANVAS, "detections": D, "mask_side": recipe.mask_side, **options}
    manifest = things_manifest(recipe=recipe, **chosen)
    preprocess = msgspec.structs.replace(
        manifest.preprocess,
        channel_order=recipe.input.channel_order,
        pixel_mean=recipe.input.pixel_mean,
        pixel_std=recipe.input.pixel_std,
    )
    outputs = (*manifest.outputs, *further)
    manifest = msgspec.structs.replace(
        manifest, weights=record, preprocess=preprocess, outputs=outputs
    )
    return Bundle.open(write_bundle(path, manifest, {WEIGHTS: weights}))


def instances(runner: Any, image: Any) -> Any:
    return runner(image)["instances"]


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [POINTREND, STANDARD], ids=["pointrend", "standard"])
def test_a_picture_that_fits_gives_the_models_output_stages(
    tmp_path: Path, recipe: InstanceRecipe
) -> None:
    made = model(recipe)
    runner = open_runner(make_bundle(tmp_path, made, recipe), "torch")
    assert isinstance(runner, TorchRunner) and runner.name == "torch"
    image = picture(96, 120)  # padded to 96 x 128 by the model and by the canvas alike
    stages = made.stages(image)
    found = instances(runner, image)
    assert len(found) > 3
    assert np.array_equal(found.boxes, stages["output_boxes"].numpy())
    assert np.array_equal(found.scores, stages["output_scores"].numpy())
    assert np.array_equal(found.classes, stages["output_classes"].numpy())
    assert np.array_equal(found.masks, stages["masks"].numpy())
    assert not np.array_equal(instances(runner, image[:, :, ::-1]).boxes, found.boxes)


def test_a_resized_picture_agrees_with_out_hw(tmp_path: Path, reference: InstanceModel) -> None:
    runner = open_runner(make_bundle(tmp_path, reference), "torch")
    image = picture(192, 256)
    stages = reference.stages(resize_image(image, CANVAS), out_hw=(192, 256))
    found = instances(runner, image)
    assert np.array_equal(found.boxes, stages["output_boxes"].numpy())
    assert np.array_equal(found.masks, stages["masks"].numpy())


def test_every_picture_of_a_batch_has_its_own_extent(
    tmp_path: Path, reference: InstanceModel
) -> None:
    runner, alone = (
        open_runner(
            make_bundle(tmp_path / str(n), reference, CHOOSY, batch=n, detections=30), "torch"
        )
        for n in (2, 1)
    )
    images = [picture(90, 90, 1), picture(96, 128, 2), picture(20, 128, 3)]
    for image, found in zip(images, runner(images)["instances"], strict=True):
        expected = instances(alone, image)
        assert np.allclose(found.boxes, expected.boxes, atol=1e-4)
        assert np.array_equal(found.classes, expected.classes)
        assert (found.masks != expected.masks).mean() < 1e-4
        assert (found.boxes <= np.tile(image.shape[1::-1], 2)).all()
    assert len({len(found) for found in runner(images)["instances"]}) > 1


def test_pre_processing_in_the_graph_means_the_same(
    tmp_path: Path, reference: InstanceModel
) -> None:
    outside = open_runner(make_bundle(tmp_path / "o", reference), "torch")
    inside = open_runner(make_bundle(tmp_path / "i", reference, location="in-graph"), "torch")
    one, other = (instances(runner, picture(90, 128)) for runner in (outside, inside))
    assert len(one) and np.array_equal(one.boxes, other.boxes)
    assert np.array_equal(one.masks, other.masks)


def test_a_blank_picture_has_nothing(tmp_path: Path, reference: InstanceModel) -> None:
    sure = changed(POINTREND, "box_head", score_threshold=0.999)
    runner = open_runner(make_bundle(tmp_path, reference, sure), "torch")
    found = instances(runner, np.full((60, 80, 3), 120, np.uint8))
    assert len(found) == 0 and found.masks.shape == (0, 60, 80)


def test_outputs_have_the_manifests_shapes_and_zero_rows(
    tmp_path: Path, reference: InstanceModel
) -> None:
    choosy = model(changed(CHOOSY, "box_head", detections=30))
    for layout in ("single", "split"):
        for masks, dtype in (("prob", "float32"), ("prob-u8", "uint8"), ("logits", "float32")):
            bundle = make_bundle(
                tmp_path / f"{layout} {masks}",
                reference,
                CHOOSY,
                **{"layout": layout, "masks": masks, "detections": 30, "batch": 2},
            )
            if layout == "split":  # the level the mask graph reads, as wide as the model's
                p2 = TensorSpec(name="p2", dtype="float32", shape=(2, 8, 24, 32))
                outputs = (*bundle.manifest.outputs[:4], p2)
                bundle.manifest = msgspec.structs.replace(bundle.manifest, outputs=outputs)
            runner = open_runner(bundle, "torch")
            batch = batch_of([runner.prepare(picture(96, 128))], bundle.manifest)
            found = runner.infer(batch)
            expected = [*OUTPUTS, "p2"] if layout == "split" else list(OUTPUTS)
            assert list(found) == expected
            assert found["masks"].shape == (2, 30, 224, 224) and found["masks"].dtype == dtype
            assert found["classes"].dtype == found["num_detections"].dtype == np.int64
            count = int(found["num_detections"][0])
            assert 0 < count < 30
            for name in ("boxes", "scores", "classes", "masks"):
                assert not found[name][:, count:].any() and found[name][:, :count].any()
            prediction = runner.finish(found, 0, runner.prepare(picture(96, 128)))
            exact = choosy.stages(picture(96, 128))["masks"].numpy()
            assert (prediction["instances"].masks != exact).mean() < 1e-3  # type: ignore


def test_number_of_detections_is_the_bundles(tmp_path: Path, reference: InstanceModel) -> None:
    """Fewer or more than the recipe's: the model keeps so many."""
    generous = changed(POINTREND, "box_head", score_threshold=0.0)
    counts = {}
    for detections in (3, D, 35):
        bundle = make_bundle(tmp_path / str(detections), reference, generous, detections=detections)
        counts[detections] = instances(open_runner(bundle, "torch"), picture(96, 128))
    assert [len(found) for found in counts.values()] == [3, D, 35]
    for detections in (3, D):
        assert np.array_equal(counts[detections].scores, counts[35].scores[:detections])
        assert np.array_equal(counts[detections].boxes, counts[35].boxes[:detections])


# --- stages -------------------------------------------------------------------------------------


def test_canvas_stages_are_those_of_each_picture(tmp_path: Path, reference: InstanceModel) -> None:
    runner = open_runner(make_bundle(tmp_path, reference, batch=2), "torch")
    assert isinstance(runner, TorchRunner)
    images = [picture(96, 128, 1), picture(96, 120, 2)]
    batch = batch_of([runner.prepare(image) for image in images], runner.bundle.manifest)
    found = runner.canvas_stages(batch)
    assert len(found) == 2
    for image, stages in zip(images, found, strict=True):
        expected = reference.stages(image)
        assert list(stages) == list(expected)[: len(stages)] and "mask_logits" in stages
        for name, stage in stages.items():
            assert torch.equal(stage, expected[name]), name
    outputs = runner.reference.outputs(found)
    assert outputs["num_detections"].tolist() == [len(stages["boxes"]) for stages in found]


def test_inner_stages_come_in_the_manifests_shapes(
    tmp_path: Path, reference: InstanceModel
) -> None:
    shapes = {
        "p2": (2, 8, 24, 32),
        "p5": (2, 8, 3, 4),
        "proposals": (2, 40, 4),
        "coarse": (2, D, 3, 7, 7),
        "step0.point_logits": (2, D, 1, 784),
        "step1.point_logits": (2, D, 1, 784),
        "mask_logits": (2, D, 224, 224),
    }
    further = [TensorSpec(name=n, dtype="float32", shape=s) for n, s in shapes.items()]
    further += [TensorSpec(name="proposal_count", dtype="int64", shape=(2,))]
    further += [TensorSpec(name="step1.indices", dtype="int64", shape=(2, D, 784))]
    runner = open_runner(make_bundle(tmp_path, reference, batch=2, further=further), "torch")
    image = picture(96, 128)
    found = runner.infer(batch_of([runner.prepare(image)], runner.bundle.manifest))
    stages = {name: stage.numpy() for name, stage in reference.stages(image).items()}
    assert list(found) == [*OUTPUTS, *(spec.name for spec in further)]
    count, proposals = int(found["num_detections"][0]), int(found["proposal_count"][0])
    assert proposals == len(stages["proposals"]) and count == len(stages["boxes"])
    for name, shape in shapes.items():
        assert found[name].shape == shape
    for row in (0, 1):
        for name in ("coarse", "step0.point_logits", "step1.indices", "step1.point_logits"):
            assert np.array_equal(found[name][row, :count], stages[name])
        assert np.array_equal(found["mask_logits"][row, :count], stages["mask_logits"][:, 0])
        assert np.array_equal(found["proposals"][row, :proposals], stages["proposals"])
        assert np.array_equal(found["p5"][row], stages["p5"][0])


def test_outputs_the_model_does_not_have(tmp_path: Path, reference: InstanceModel) -> None:
    unknown = TensorSpec(name="p9", dtype="float32", shape=(1, 8, 1, 1))
    runner = open_runner(make_bundle(tmp_path / "a", reference, further=[unknown]), "torch")
    with pytest.raises(DeployError, match="no stage called p9"):
        runner(picture())
    narrow = TensorSpec(name="p2", dtype="float32", shape=(1, 4, 24, 32))
    runner = open_runner(make_bundle(tmp_path / "b", reference, further=[narrow]), "torch")
    with pytest.raises(
        DeployError, match=r"p2 has shape \[8, 24, 32\], the bundle's \[4, 24, 32\]"
    ):
        runner(picture())


# --- refusals -----------------------------------------------------------------------------------


def test_a_semantic_model_says_what_it_needs(tmp_path: Path, reference: InstanceModel) -> None:
    bundle = make_bundle(tmp_path, reference)
    with pytest.raises(DeployError, match="needs a semantic one"):
        SemanticReference(bundle.manifest, bundle.file(WEIGHTS))


def test_torch_not_installed(tmp_path: Path, reference: InstanceModel, monkeypatch: Any) -> None:
    bundle = make_bundle(tmp_path, reference)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeployError, match="torch needs torch, which is not installed"):
        open_runner(bundle, "torch")


def test_other_weights_are_refused(tmp_path: Path, reference: InstanceModel) -> None:
    bundle = make_bundle(tmp_path / "bundle", reference)
    given = tmp_path / "other.safetensors"
    given.write_bytes(weights_of(model(POINTREND, seed=1)))
    with pytest.raises(DeployError, match="not the checkpoint this bundle was made from"):
        open_runner(bundle, "torch", weights=given)
