"""Export: verified, atomic, and refused where it should be."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from pointrend_deploy import load_model, open_runner
from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.graph.semantic import export as semantic_graph
from pointrend_deploy.pictures.generated import verification_picture
from pointrend_deploy.recipe.semantic import Recipe
from pointrend_deploy.verbs.export.export import STEPS, export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions
from tests.conftest import SIZE, Exporter
from tests.repository import ROOT

OPTIONS = ExportOptions(size_hw=SIZE)


def test_a_bundle_is_whole_and_verified(exported: Exporter) -> None:
    path = exported()
    names = {entry.name for entry in path.iterdir()}
    assert names == {
        "manifest.json",
        "model.onnx",
        "weights.safetensors",
        "parity.json",
        "report.html",
    }
    bundle = Bundle.open(path)
    assert set(bundle.manifest.files) == names - {"manifest.json"}
    run = json.loads((path / "parity.json").read_text())["runs"]["export"]
    assert run["passed"]
    stages = [row["name"] for row in run["stages"]]
    steps = [f"step{t}.{what}" for t in range(4) for what in ("indices", "point_logits")]
    assert stages == ["p2", "p4", "coarse", *steps, "labels"]
    assert all(gate["passed"] for gate in run["gates"])


class Counting:
    """Progress that counts steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        self.steps.append(text)
        yield lambda: None


def test_every_step_has_its_number(recipe: Recipe, weights: Path, tmp_path: Path) -> None:
    counting = Counting()
    export_bundle(recipe, weights, tmp_path / "b", OPTIONS, progress=counting)
    numbers = [step.split()[0] for step in counting.steps]
    assert numbers == [f"{i + 1}/{STEPS}" for i in range(STEPS)]
    said = re.fullmatch(
        r"tracing and optimising the graph \(about (\d+) (s|min), the whole export (\d+) (s|min)\)",
        counting.steps[1].removeprefix(f"2/{STEPS} "),
    )
    assert said is not None, counting.steps[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ops": "native"},
        {"preprocess": "in-graph"},
        {"batch": 3},
        {"outputs": ("labels", "logits")},
        {"outputs": ("labels", "stages")},
        {"outputs": ("labels", "logits", "stages"), "preprocess": "in-graph", "batch": 2},
    ],
    ids=str,
)
def test_every_kind_of_bundle_answers_as_the_reference(
    exported: Exporter, recipe: Recipe, weights: Path, options: dict[str, object]
) -> None:
    model = load_model(recipe, weights)
    runner = open_runner(exported(**options), "onnx")
    images = [verification_picture(*SIZE, seed) for seed in range(7, 11)]
    answers = runner(images)
    assert len(np.unique(answers["labels"][0])) > 1
    for image, labels, *_ in zip(images, answers["labels"], strict=True):
        stages = model.stages(image)
        assert (labels == stages["labels"][0].numpy()).mean() >= 0.9998
    if "logits" in options.get("outputs", ()):
        assert np.abs(answers["logits"][3] - stages["logits"][0].numpy()).max() < 1e-3
    if "stages" in options.get("outputs", ()):
        assert np.abs(answers["stages"][3]["coarse"] - stages["coarse"][0].numpy()).max() < 1e-3


def test_native_has_no_custom_nodes_and_plugin_has(exported: Exporter) -> None:
    native = onnx.load(exported(ops="native") / "model.onnx")
    assert {node.domain for node in native.graph.node} <= {""}
    assert not native.functions
    plugin = onnx.load(exported() / "model.onnx")
    kinds = [node.op_type for node in plugin.graph.node if node.domain == "pointrend"]
    assert {*kinds} == {
        *("PointRendSampleCells", "PointRendUncertain", "PointRendUpsampleUncertainty"),
        *("PointRendUpsampleLabels", "PointRendRefineLogits", "PointRendRefineLabels"),
    }
    assert {function.name for function in plugin.functions} == {*kinds}


def test_a_graph_that_differs_is_refused_by_its_first_stage(
    recipe: Recipe, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = semantic_graph.export_graph

    def planted(*args: object) -> onnx.ModelProto:
        graph = original(*args)  # type: ignore[arg-type]
        bias = next(
            value
            for value in graph.graph.initializer
            if value.name.endswith("p4.0.norm.bias")
            or "coarse_sem_seg_head.predictor.bias" in value.name
        )
        wrong = onnx.numpy_helper.to_array(bias) + 0.1
        bias.CopyFrom(onnx.numpy_helper.from_array(wrong, bias.name))
        return graph

    monkeypatch.setattr(semantic_graph, "export_graph", planted)
    with pytest.raises(ParityError) as caught:
        export_bundle(recipe, weights, tmp_path / "bundle", OPTIONS)
    assert "first at `coarse`" in caught.value.message
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_bundle(
    exported: Exporter, recipe: Recipe, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(exported(), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    tensors = load_file(weights)
    tensors["sem_seg_head.point_head.fc1.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(DeployError, match=r"fc1\.weight"):
        export_bundle(recipe, tmp_path / "bad.safetensors", out, OPTIONS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_bundle(recipe, weights, out, ExportOptions(size_hw=(48, 48)))
    assert Bundle.open(out).manifest.canvas.size_hw == (48, 48)


@pytest.mark.parametrize("size", [(1, 1), (16, 200), (48, 48)])
def test_sizes_at_which_steps_recompute_every_cell(
    recipe: Recipe, weights: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    """K >= H*W in one step, in several, and in all of them; sizes that need padding."""
    export_bundle(recipe, weights, tmp_path / "b", ExportOptions(size_hw=size))
    image = verification_picture(*size, 3)
    expected = load_model(recipe, weights).stages(image)
    assert expected["step0.indices"].shape[1] == expected["coarse"][0, 0].numel() * 4
    labels = open_runner(tmp_path / "b", "onnx")(image)["labels"]
    assert np.array_equal(labels, expected["labels"][0].numpy())


def test_what_stands_in_the_way_is_not_removed(
    exported: Exporter, recipe: Recipe, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(DeployError, match="is not a bundle"):
        export_bundle(recipe, weights, tmp_path / "mine", OPTIONS)
    out = tmp_path / "bundle"
    shutil.copytree(exported(), out)
    (out / "engines").mkdir()
    with pytest.raises(DeployError, match="engines") as caught:
        export_bundle(recipe, weights, out, OPTIONS)
    assert "--force" in caught.value.hint


def test_a_disk_that_refuses_leaves_nothing(recipe: Recipe, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pointrend_deploy.verbs.export.export import STEPS, export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions
from pointrend_deploy.errors import DeployError
from tests.conftest import small_recipe
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    export_bundle(small_recipe(), {str(weights)!r}, {str(out)!r}, ExportOptions(size_hw={SIZE}))
except DeployError as error:
    print(error.message)
"""
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot write" in done.stdout, done.stderr
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_without_weights_run_works_and_the_rest_asks_for_them(
    recipe: Recipe, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    export_bundle(recipe, weights, out, ExportOptions(size_hw=SIZE, include_weights=False))
    assert not (out / "weights.safetensors").exists()
    image = verification_picture(50, 70, 1)
    labels = open_runner(out, "onnx")(image)["labels"]
    with pytest.raises(DeployError, match="without its weights"):
        open_runner(out, "torch")
    again = open_runner(out, "torch", weights=weights)(image)["labels"]
    assert (labels == again).mean() > 0.999
    tensors = load_file(weights)
    tensors["backbone.fpn_lateral2.bias"] += 1e-3
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(DeployError, match="not the checkpoint this bundle was made from"):
        open_runner(out, "torch", weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "options",
    [
        {"size_hw": (0, 64)},
        {"size_hw": (64, 99999)},
        {"batch": 0},
        {"outputs": ("logits",)},
        {"outputs": ("labels", "labels")},
        {"outputs": ("labels", "masks")},
        {"outputs": ()},
    ],
    ids=str,
)
def test_choices_that_make_no_sense(
    recipe: Recipe, weights: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(DeployError):
        export_bundle(
            recipe,
            weights,
            tmp_path / "b",
            ExportOptions(**{"size_hw": SIZE, **options}),  # type: ignore[arg-type]
        )
    assert list(tmp_path.iterdir()) == []


def test_the_same_export_twice_is_the_same_graph(
    exported: Exporter, recipe: Recipe, weights: Path, tmp_path: Path
) -> None:
    export_bundle(recipe, weights, tmp_path / "b", OPTIONS)
    first = (exported() / "model.onnx").read_bytes()
    assert (tmp_path / "b" / "model.onnx").read_bytes() == first


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "parity.json"])
def test_a_changed_byte_stops_a_run(exported: Exporter, tmp_path: Path, name: str) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(exported(), out)
    raw = bytearray((out / name).read_bytes())
    raw[-9] ^= 64
    (out / name).write_bytes(raw)
    with pytest.raises(DeployError, match="is not the file that was exported"):
        open_runner(out)


def test_verification_on_the_users_pictures(
    recipe: Recipe, weights: Path, pictures: Path, tmp_path: Path
) -> None:
    result = export_bundle(recipe, weights, tmp_path / "b", OPTIONS, verify_on=pictures)
    assert result.label_agreement >= 0.9998
    with pytest.raises(DeployError):
        export_bundle(recipe, weights, tmp_path / "c", OPTIONS, verify_on=tmp_path / "none")


def test_two_best_logits_tied_everywhere(recipe: Recipe, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    for head in ("coarse_sem_seg_head", "point_head"):
        weight = tensors[f"sem_seg_head.{head}.predictor.weight"]
        tensors[f"sem_seg_head.{head}.predictor.bias"].zero_()
        weight.zero_()
        for label in range(6):  # one weight each: no order of summation can break the ties
            weight[label, 3 + label % 3] = 5.0
    save_file(tensors, tmp_path / "tied.safetensors")
    model = load_model(recipe, tmp_path / "tied.safetensors")
    image = verification_picture(*SIZE, 3)
    stages = model.stages(image)
    best = stages["logits"].topk(2, dim=1).values
    assert torch.equal(best[:, 0], best[:, 1])
    assert set(stages["labels"].unique().tolist()) == {0, 1, 2}
    for ops in ("plugin", "native"):
        out = tmp_path / ops
        options = ExportOptions(size_hw=SIZE, ops=ops)  # type: ignore[arg-type]
        export_bundle(recipe, tmp_path / "tied.safetensors", out, options)
        labels = open_runner(out, "onnx")(image)["labels"]
        assert np.array_equal(labels, stages["labels"][0].numpy())


def test_another_programs_manifest_is_no_bundle(
    recipe: Recipe, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "an extension"}')
    with pytest.raises(DeployError, match="is not a bundle"):
        export_bundle(recipe, weights, tmp_path / "app", OPTIONS, force=True)
    assert (tmp_path / "app" / "manifest.json").read_text() == '{"name": "an extension"}'


def test_what_would_fail_late_fails_early(
    recipe: Recipe, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("traced")

    monkeypatch.setattr(semantic_graph, "export_graph", never)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    for verify_on in (tmp_path / "none", tmp_path / "cut.png"):
        with pytest.raises(DeployError):
            export_bundle(recipe, weights, tmp_path / "b", OPTIONS, verify_on=verify_on)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DeployError, match="cannot write into"):
        export_bundle(recipe, weights, tmp_path / "file" / "b", OPTIONS)


def test_export_into_the_folder_one_stands_in(
    recipe: Recipe, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export_bundle(recipe, weights, ".", OPTIONS)
    assert Bundle.open(tmp_path / "here").manifest.name == "small"


@pytest.mark.parametrize("out_hw", [(5,), (5, 6, 7), 5, (5.5, 6), "ab", (True, 2), (0, 5)])
def test_a_wrong_out_hw_is_said(recipe: Recipe, weights: Path, out_hw: object) -> None:
    with pytest.raises(DeployError, match="out_hw"):
        load_model(recipe, weights).stages(
            verification_picture(20, 20, 0),
            out_hw,  # type: ignore[arg-type]
        )
