"""Exported instance bundles in ONNX Runtime against the reference, on pictures of many sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from pointrend_deploy import load_recipe, open_runner
from pointrend_deploy.model.network_input import canvas_input
from pointrend_deploy.parity.exported import run_with_stages
from pointrend_deploy.parity.instance.boxes import Detections, detections_outcome, proposals_outcome
from pointrend_deploy.parity.instance.masks import overlap
from pointrend_deploy.parity.instance.matching import match
from pointrend_deploy.parity.instance.reference import TorchPicture
from pointrend_deploy.pictures.canvas import batch_of, from_rgb
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.run.backends.pytorch import TorchRunner
from pointrend_deploy.run.runner import BundleRunner
from pointrend_deploy.verbs.export.export import export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions
from tests.fixtures import tiny_instance
from tests.fixtures.imitated_graph import Case
from tests.repository import ROOT

pytestmark = pytest.mark.slow
DEMO = ROOT / "demo" / "demo_instance.safetensors"
SIZE = (256, 320)
SCENES = {0: (256, 256), 7: (200, 256), 11: (256, 190), 19: (97, 120), 23: (240, 61)}
"""Scenes that are cut to these sizes."""


def pictures() -> list[NDArray[np.uint8]]:
    """Five photographs and some generated scenes, ten sizes in all."""
    found = [Image.open(path) for path in sorted((ROOT / "demo" / "pictures").glob("*.jpg"))]
    for number, (height, width) in SCENES.items():
        scene = Image.open(ROOT / "demo" / "scenes" / f"{number:04}.png")
        found.append(scene.crop((0, 0, width, height)))
    return [np.asarray(picture.convert("RGB")) for picture in found]


def random_model(folder: Path) -> tuple[InstanceRecipe, Path]:
    """A model of random weights that detects something everywhere."""
    recipe = tiny_instance.changed(
        tiny_instance.POINTREND, "box_head", detections=10, score_threshold=0.3
    )
    weights = folder / "random.safetensors"
    model = Case(recipe, pictures=(SIZE,)).model
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(weights))
    return recipe, weights


@dataclass
class Differences:
    """What ONNX Runtime and the reference have in common over all pictures."""

    sizes: set[tuple[int, ...]]
    matched: int
    unmatched: int
    box: float
    score: float
    ious: list[float]


def differences(left: BundleRunner, right: BundleRunner) -> Differences:
    """Boxes are compared in pixels of the canvas, masks at each picture's own size."""
    manifest = left.bundle.manifest
    total = Differences(set(), 0, 0, 0.0, 0.0, [])
    for rgb in pictures():
        image = np.ascontiguousarray(from_rgb(rgb, manifest))
        picture = left.prepare(image)
        outputs = [runner.infer(batch_of([picture], manifest)) for runner in (left, right)]
        canvas = [
            [out[name][0, : out["num_detections"][0]] for name in ("boxes", "classes", "scores")]
            for out in outputs
        ]
        found = match(*canvas[0], *canvas[1])
        a, b = found.pairs.T
        total.sizes.add(image.shape)
        total.matched += len(a)
        total.unmatched += len(found.only_a) + len(found.only_b)
        apart = np.abs(canvas[0][0][a] - canvas[1][0][b])
        total.box = max(total.box, float(apart.max(initial=0)))
        total.score = max(
            total.score, float(np.abs(canvas[0][2][a] - canvas[1][2][b]).max(initial=0))
        )
        ours, theirs = (
            runner.finish(out, 0, picture)["instances"]
            for runner, out in zip((left, right), outputs, strict=True)
        )
        columns = ("boxes", "classes", "scores")
        same = match(*(getattr(side, name) for side in (ours, theirs) for name in columns))
        assert len(same.pairs) == len(ours) == len(theirs)
        for i, j in same.pairs:
            both, union = overlap(ours.patches[i], theirs.patches[j])
            if union:
                total.ious.append(both / union)
    return total


def test_the_demonstration_model_detects_the_same_on_pictures_of_many_sizes(
    tmp_path: Path,
) -> None:
    bundle = tmp_path / "bundle"
    recipe = load_recipe(ROOT / "export" / "demo_instance.toml")
    scenes = ROOT / "demo" / "scenes"
    export_bundle(recipe, DEMO, bundle, ExportOptions(size_hw=SIZE), verify_on=scenes)
    found = differences(open_runner(bundle, "onnx"), open_runner(bundle, "torch"))
    print(found)
    assert len(found.sizes) >= 8
    assert found.matched >= 8
    assert found.unmatched == 0
    assert found.box <= 0.05
    assert found.score <= 1e-3
    assert len(found.ious) >= 8
    assert np.mean(found.ious) >= 0.999
    assert min(found.ious) >= 0.99


def test_a_random_model_differs_by_near_ties_alone(tmp_path: Path) -> None:
    """Its proposals' scores say nothing, so that some of them are equal but for rounding."""
    recipe, weights = random_model(tmp_path)
    export_bundle(recipe, weights, tmp_path / "bundle", ExportOptions(size_hw=SIZE))
    runner = open_runner(tmp_path / "bundle", "torch")
    assert isinstance(runner, TorchRunner)
    manifest = runner.bundle.manifest
    graph = onnx.load(tmp_path / "bundle" / "model.onnx")
    matched = strays = 0
    for rgb in pictures():
        picture = runner.prepare(np.ascontiguousarray(from_rgb(rgb, manifest)))
        batch = batch_of([picture], manifest)
        reference = TorchPicture(runner.model, canvas_input(manifest, batch), picture.fitted_hw)
        stages = ("proposals", "proposal_count")
        outputs = {k: v[0] for k, v in run_with_stages(graph, batch, stages).items()}
        proposals = outputs["proposals"][: outputs["proposal_count"]]
        first = proposals_outcome(
            reference.proposals, proposals, len(proposals), reference.proposal_pool
        )
        theirs, pool = reference.detections(proposals)
        ours = Detections(*(outputs[name] for name in ("boxes", "scores", "classes")))
        second = detections_outcome(theirs, ours, int(outputs["num_detections"]), pool)
        assert first.problems == second.problems == []
        matched += len(second.pairs)
        strays += first.strays + second.strays
        assert second.apart <= 0.05 and second.scores_apart <= 1e-3
    print(matched, strays)
    assert matched >= 90
    assert strays <= 10
