"""Export of instance models: verified whichever the layout, and refused where it should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from pointrend_deploy import open_runner
from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.cli import Interrupted
from pointrend_deploy.errors import DeployError, ParityError, UsageError
from pointrend_deploy.graph.instance import export as instance_graphs
from pointrend_deploy.graph.instance.specs import InstanceGraphOptions
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.parity.instance.matching import match
from pointrend_deploy.pictures.generated import verification_picture
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.semantic import Recipe
from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.verbs.export.export import export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions
from pointrend_deploy.verbs.export.task import export_task
from tests.conftest import small_recipe
from tests.fixtures import shared, tiny_instance
from tests.fixtures.imitated_graph import Case

SIZE = (96, 128)
RECIPE = tiny_instance.changed(
    tiny_instance.changed(tiny_instance.POINTREND, "box_head", detections=20, score_threshold=0.3),
    "point_head",
    subdivision_steps=3,
    subdivision_points=196,
)
BLIND = tiny_instance.changed(RECIPE, "box_head", score_threshold=0.999)
"""The same model, sure of nothing."""
PLAIN = msgspec.structs.replace(
    RECIPE, name="plain", mask_head=tiny_instance.STANDARD.mask_head, point_head=None
)
Graphs = dict[str, onnx.ModelProto]
Tracer = Callable[..., Graphs]


def options(**values: object) -> ExportOptions:
    return ExportOptions(**{"size_hw": SIZE, **values})  # type: ignore[arg-type]


def alike(found: Instances, expected: Instances) -> None:
    """The same detections, whatever the order of nearly equal scores."""
    pairs = match(
        *(getattr(found, name) for name in ("boxes", "classes", "scores")),
        *(getattr(expected, name) for name in ("boxes", "classes", "scores")),
    ).pairs
    a, b = pairs.T
    assert len(found) == len(expected) == len(pairs)
    assert np.abs(found.boxes[a] - expected.boxes[b]).max(initial=0) < 0.01
    assert np.abs(found.scores[a] - expected.scores[b]).max(initial=0) < 1e-4
    assert (found.masks[a] != expected.masks[b]).sum() <= 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("instance") / "tiny.safetensors"
    model = Case(RECIPE, pictures=(SIZE,)).model
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(path))
    return path


@pytest.fixture(scope="module")
def traced() -> Iterator[None]:
    """Tracing takes a while, so each graph is traced once, whatever a test then does to it."""
    original = instance_graphs.export_instance_graphs

    def once(model: InstanceModel, chosen: InstanceGraphOptions) -> Graphs:
        recipe, tensors = shared.model_key(model)
        threshold = model.recipe.box_head.score_threshold
        alike = tiny_instance.changed(recipe, "box_head", score_threshold=0.0)
        key = ("any threshold", alike, tensors, chosen)
        made = shared.graphs(key, lambda: original(model, chosen))
        graphs = {name: onnx.ModelProto.FromString(graph) for name, graph in made.items()}
        for graph in graphs.values():
            for node in graph.graph.node:
                if node.op_type == "PointRendNMS":
                    for attribute in node.attribute:
                        if attribute.name == "score_threshold" and attribute.f > 0:
                            attribute.f = threshold
        return graphs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_graphs, "export_instance_graphs", once)
        yield


@pytest.fixture(scope="module")
def bundles(weights: Path, traced: None) -> dict[str, Path]:
    """A bundle of each layout. Not to be changed."""
    return {
        layout: shared.bundle(RECIPE, weights, size_hw=SIZE, layout=layout)
        for layout in ("single", "split")
    }


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["single", "split"])
def test_a_bundle_is_whole_and_verified(bundles: dict[str, Path], layout: str) -> None:
    path = bundles[layout]
    graphs = {"single": {"model.onnx"}, "split": {"detector.onnx", "masks.onnx"}}[layout]
    names = {entry.name for entry in path.iterdir()}
    assert (
        names
        == {
            "manifest.json",
            "weights.safetensors",
            "parity.json",
            "report.html",
        }
        | graphs
    )
    bundle = Bundle.open(path)
    assert set(bundle.manifest.files) == names - {"manifest.json"}
    recipe, export = bundle.manifest.instances
    assert recipe == RECIPE
    assert (export.detections, export.masks, export.layout) == (20, "prob", layout)
    assert export.mask_side == 56
    found = ("num_detections", "boxes", "scores", "classes")
    assert bundle.manifest.output_names == (
        *found,
        *(("masks",) if layout == "single" else ("p2",)),
    )
    assert [spec.name for spec in bundle.manifest.inputs] == ["image", "extent"]
    run = json.loads((path / "parity.json").read_text())["runs"]["export"]
    assert run["passed"] and run["notes"] == []
    assert [row["name"] for row in run["stages"]] == [
        *("p2", "p3", "p4", "p5", "proposals", "detections", "coarse", "step0.point_logits"),
        *("step1.indices", "step1.point_logits", "step2.indices", "step2.point_logits"),
        *("mask_logits", "masks"),
    ]
    assert all(gate["passed"] for gate in run["gates"])
    assert run["detections"]["matched"] >= 8
    assert run["detections"]["only_bundle"] == run["detections"]["only_reference"] == 0
    for name in graphs:
        outputs = {value.name for value in onnx.load(path / name).graph.output}
        assert not outputs & {"coarse", "proposals", "mask_logits"}


@pytest.mark.slow
def test_both_layouts_and_the_reference_give_the_same_detections(bundles: dict[str, Path]) -> None:
    runners = [
        open_runner(bundles["single"], "onnx"),
        open_runner(bundles["split"], "onnx"),
        open_runner(bundles["single"], "torch"),
        open_runner(bundles["split"], "torch"),
    ]
    total = 0
    for seed, size in enumerate([(96, 128), (50, 90), (200, 110), (31, 333)]):
        image = verification_picture(*size, seed + 5)
        first, *others = (runner.predict(image)["instances"] for runner in runners)
        total += len(first)
        for other in others:
            alike(first, other)
    assert total > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "chosen"),
    [
        (
            RECIPE,
            {"batch": 2, "masks": "prob-u8", "preprocess": "in-graph", "ops": "native"},
        ),
        (PLAIN, {"layout": "split", "masks": "logits", "detections": 7}),
    ],
    ids=["native, batch 2, uint8", "standard head, split, logits"],
)
def test_every_kind_of_bundle_answers_as_the_reference(
    recipe: InstanceRecipe, chosen: dict[str, object], traced: object, tmp_path: Path
) -> None:
    model = Case(recipe, pictures=(SIZE,)).model
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    result = export_bundle(recipe, tmp_path / "w.safetensors", tmp_path / "b", options(**chosen))
    assert result.label_agreement is None
    assert result.run.detections is not None and result.run.detections.matched > 0
    graph = onnx.load(tmp_path / "b" / result.bundle.manifest.graphs["fp32"])
    assert bool(graph.functions) == (chosen.get("ops") != "native")
    images = [verification_picture(70, 120, seed) for seed in range(3)]
    ours, theirs = (
        open_runner(tmp_path / "b", runner)(images)["instances"]  # type: ignore[arg-type]
        for runner in ("onnx", "torch")
    )
    assert sum(map(len, ours)) > 0
    for found, expected in zip(ours, theirs, strict=True):
        assert len(found) <= chosen.get("detections", 20)
        alike(found, expected)


@pytest.mark.slow
def test_split_replaced_by_single_leaves_no_stale_file(
    bundles: dict[str, Path], weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundles["split"], out)
    export_bundle(RECIPE, weights, out, options(masks="prob"))
    assert {entry.name for entry in out.iterdir()} == {
        entry.name for entry in bundles["single"].iterdir()
    }
    assert Bundle.open(out).manifest.instances[1].layout == "single"


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["single", "split"])
def test_a_graph_that_differs_is_refused_by_its_first_stage(
    bundles: dict[str, Path],
    weights: Path,
    layout: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each planted in the weights of the graph; the same in the mask part with no detection."""
    unharmed = instance_graphs.export_instance_graphs

    def planted(graph: str, name: str) -> Tracer:
        def export(*args: object) -> Graphs:
            graphs = unharmed(*args)  # type: ignore[arg-type]
            touched = 0
            for proto in graphs.values():
                for weight in proto.graph.initializer:
                    if name in weight.name:
                        values = onnx.numpy_helper.to_array(weight) * np.float32(2)
                        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
                        touched += 1
            assert touched, sorted(w.name for p in graphs.values() for w in p.graph.initializer)
            return graphs

        return export

    for recipe in (RECIPE, BLIND):
        for name, stage in (
            ("fpn_output2.weight", "p2"),
            ("anchor_deltas.weight", "proposals"),
            ("bbox_pred.weight", "detections"),
            ("reduce_spatial_dim_conv.weight", "coarse"),
        ):
            if recipe is BLIND and stage == "detections":
                continue  # what is not detected cannot be told apart
            monkeypatch.setattr(instance_graphs, "export_instance_graphs", planted(layout, name))
            with pytest.raises(ParityError) as caught:
                export_bundle(recipe, weights, tmp_path / "bundle", options(layout=layout))
            assert f"first at `{stage}`" in caught.value.message
            assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["single", "split"])
def test_a_model_that_detects_nothing_is_verified_on_its_proposals(
    bundles: dict[str, Path], weights: Path, layout: str, tmp_path: Path
) -> None:
    result = export_bundle(BLIND, weights, tmp_path / "bundle", options(layout=layout))
    assert "0 of 0 detections matched" in result.summary()
    assert "masks were verified on 16 boxes taken from its proposals" in result.summary()
    masks = next(row for row in result.run.stages if row.name == "masks")
    assert masks.compared == 16
    found = open_runner(tmp_path / "bundle", "onnx").predict(verification_picture(*SIZE, 3))
    assert len(found["instances"]) == 0


@pytest.mark.slow
def test_what_stops_an_export_leaves_the_old_bundle_and_nothing_else(
    bundles: dict[str, Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundles["single"], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def untouched() -> bool:
        held = {path.name: path.read_bytes() for path in out.iterdir()} == before
        return held and list(tmp_path.iterdir()) == [out]

    from pointrend_deploy.parity.instance import exported as instance_verification

    def interrupted(*args: object) -> None:
        raise Interrupted(2)

    with monkeypatch.context() as patch:
        patch.setattr(instance_verification, "verify_instance_graphs", interrupted)
        with pytest.raises(Interrupted):
            export_bundle(RECIPE, weights, out, options(layout="split"))
    assert untouched()
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "masks.onnx":
            raise OSError(28, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DeployError, match="No space left on device"):
            export_bundle(RECIPE, weights, out, options(layout="split"))
    assert untouched()


WRONG_CHOICES: dict[str, tuple[dict[str, object], str]] = {
    "no detections": ({"detections": 0}, "--detections 0 is out of range"),
    "fewer than none": ({"detections": -5}, "--detections -5 is out of range"),
    "over the candidates": (
        {"detections": 121},
        "keeps 40 proposals at 96x128, each with 3 classes: use 1 to 120",
    ),
    "over those at this size": (
        {"size_hw": (16, 16), "detections": 370},
        "keeps 123 proposals at 32x32, each with 3 classes: use 1 to 369",
    ),
    "smaller than an anchor": ({"size_hw": (15, 200)}, "sides of 16 pixels"),
    "outputs": ({"outputs": ("labels",)}, "--outputs is an option of semantic models"),
    "masks": ({"masks": "rle"}, "--masks rle cannot be exported"),
    "layout": ({"layout": "double"}, "--layout double cannot be exported"),
    "batch": ({"batch": 0}, "--batch 0"),
}


@pytest.fixture
def never_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("traced")

    monkeypatch.setattr(instance_graphs, "export_instance_graphs", never)


@pytest.mark.parametrize("choice", WRONG_CHOICES)
def test_choices_that_make_no_sense(
    choice: str, weights: Path, tmp_path: Path, never_traced: None
) -> None:
    values, said = WRONG_CHOICES[choice]
    recipe = RECIPE
    if choice == "over those at this size":
        recipe = tiny_instance.changed(RECIPE, "rpn", post_nms_topk=200)
    with pytest.raises(DeployError) as caught:
        export_bundle(recipe, weights, tmp_path / "b", options(**values))
    assert said in f"{caught.value.message} {caught.value.hint}"
    if recipe is RECIPE:
        assert isinstance(caught.value, UsageError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("never_traced")
def test_the_size_suggested_for_an_anchor_of_12_and_a_half_pixels_is_taken() -> None:
    sizes = ((12.5,), *RECIPE.rpn.anchor_sizes[1:])
    recipe = tiny_instance.changed(RECIPE, "rpn", anchor_sizes=sizes)
    with pytest.raises(UsageError) as caught:
        export_task(recipe, options(size_hw=(12, 200)))
    assert caught.value.hint.endswith("use 13x13 or more")
    export_task(recipe, options(size_hw=(13, 13), detections=1))


@pytest.mark.parametrize("option", [{"detections": 5}, {"masks": "prob"}, {"layout": "single"}])
def test_choices_of_instance_models_with_a_semantic_recipe(
    option: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match="of instance models, and small is a recipe of task semantic"
    ):
        export_bundle(small_recipe(), "none.pth", tmp_path / "b", options(**option))


def classes_renamed(recipe: InstanceRecipe) -> InstanceRecipe:
    return tiny_instance.changed(recipe, "classes", names=("a", "b", "c", "d"))


def test_checkpoints_that_do_not_fit(
    weights: Path, tmp_path: Path, never_traced: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.conftest import small_weights

    semantic = small_weights(small_recipe(), tmp_path_factory.mktemp("w") / "small.safetensors")
    wrong: list[tuple[Recipe | InstanceRecipe, Path, str]] = [
        (RECIPE, semantic, "semantic"),
        (small_recipe(), weights, "instance"),
        (classes_renamed(RECIPE), weights, "the checkpoint predicts 3 classes"),
        (PLAIN, weights, "PointRend"),
    ]
    for recipe, checkpoint, said in wrong:
        with pytest.raises(DeployError) as caught:
            export_bundle(recipe, checkpoint, tmp_path / "b", options())
        assert said in f"{caught.value.message} {caught.value.hint}"
        assert list(tmp_path.iterdir()) == []


def test_an_implicit_pointrend_checkpoint_is_refused_with_its_reason(
    weights: Path, tmp_path: Path, never_traced: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from safetensors.torch import load_file

    tensors = {k: v for k, v in load_file(weights).items() if ".mask_head." not in k}
    head = torch.zeros(2_000, 16)
    tensors["roi_heads.mask_head.parameter_head.prediction.weight"] = head
    implicit = tmp_path_factory.mktemp("w") / "implicit.safetensors"
    save_file(tensors, implicit)
    with pytest.raises(DeployError, match="Implicit PointRend: its parameter head") as caught:
        export_bundle(RECIPE, implicit, tmp_path / "b", options())
    assert "use a PointRend checkpoint with a standard point head" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
