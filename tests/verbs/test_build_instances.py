"""Engines of the demonstration instance models and of detectron2's, for GPUs that are not here."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import onnx
import pytest

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.model import load_instance_model
from pointrend_deploy.verbs.build import BuildOptions, BuiltTarget, build_bundle, explain
from tests import golden_differences, golden_differences_instance
from tests.engine.large import instance_bundle, semantic_bundle
from tests.engine.rtx import built_library, rtx_needed
from tests.fixtures import shared
from tests.repository import ROOT

# Measured on two cores: an engine takes some seconds, tracing a graph 10 to 40.
pytestmark = pytest.mark.slow

FOUR = "rtx:80,86,89,120"
NO_SUCH_OP = r"TensorRT-RTX has no (NonMaxSuppression|RoiAlign) \(node \S+\)"
INSTANCE_OPS = {
    *("PointRendNMS", "PointRendRoIAlign", "PointRendSample", "PointRendSampleRoIs"),
    "PointRendUncertain",
}
PLUGIN = "custom_layer"
"""TensorRT-RTX's word for what is a PLUGIN_V3 in the parsed network, in its table of layers."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rtx_needed()
    return built_library(tmp_path_factory)


@pytest.fixture(autouse=True)
def plugins(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTREND_PLUGINS", str(library))


@pytest.fixture(scope="module")
def demo() -> Path:
    """The demonstration instance model, exported and verified. Not to be changed."""
    weights = ROOT / "demo" / "demo_instance.safetensors"
    return shared.bundle(ROOT / "export" / "demo_instance.toml", weights, size_hw=(256, 256))


@pytest.fixture
def copied(demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo, tmp_path / "bundle"))


def custom(graph: Path) -> dict[str, str]:
    """Op of each custom node of an ONNX file, by the node's name."""
    nodes = onnx.load(graph).graph.node
    return {node.name: node.op_type for node in nodes if node.domain == "pointrend"}


def expect_plugins(bundle: Path, built: BuiltTarget, ops: str = "plugin") -> None:
    """Each custom node of each graph is one plugin layer of its engine, and there is no other.

    The parser's network gives their number, the engine's layers and the log their ops too. Every
    node with weights computes in float32.
    """
    folder = bundle / "engines" / built.name
    tables = json.loads((folder / "layers.json").read_text())
    created: Counter[str] = Counter()
    for file, engine in zip(built.record.engines, built.engines, strict=True):
        wanted = custom(bundle / file.source) if ops == "plugin" else {}
        assert engine.plugins == len(wanted)
        table = tables[file.file.split("/")[-1]]
        assert set(table["weighted"].values()) == {"float32"}
        assert table["kinds"].get(PLUGIN, 0) == len(wanted)
        layers = [layer for layer in table["layers"] if layer["kind"] == PLUGIN]
        named = Counter(wanted.get(name) for layer in layers for name in layer["nodes"])
        assert named == Counter(wanted.values())
        created += Counter(wanted.values())
    log = (folder / "build.log").read_text()
    assert Counter(re.findall(r"Successfully created plugin: (PointRend\w+)", log)) == created


def content(folder: Path) -> dict[str, bytes | None]:
    """Bytes of everything under a folder; None of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_the_demonstration_model_for_four_gpus(copied: Path) -> None:
    assert set(custom(copied / "model.onnx").values()) == INSTANCE_OPS
    built = build_bundle(copied, BuildOptions(target=FOUR)).built
    assert [one.name for one in built] == [
        f"rtx-sm{capability}-fp32-plugin" for capability in (80, 86, 89, 120)
    ]
    for one in built:
        expect_plugins(copied, one)
    assert set(Bundle.open(copied).manifest.engines) == {one.name for one in built}


def test_a_custom_node_that_is_no_plugin_is_noticed(copied: Path) -> None:
    (one,) = build_bundle(copied, BuildOptions(target="rtx:86")).built
    expect_plugins(copied, one)
    file = copied / "engines" / one.name / "layers.json"
    sound = file.read_text()
    for op in sorted(INSTANCE_OPS):
        tables = json.loads(sound)
        table = tables["model.engine"]
        name = next(n for n, kind in custom(copied / "model.onnx").items() if kind == op)
        lost = next(layer for layer in table["layers"] if layer["nodes"] == [name])
        assert lost["kind"] == PLUGIN
        lost["kind"] = "kgen"
        file.write_text(json.dumps(tables))
        with pytest.raises(AssertionError):
            expect_plugins(copied, one)


def test_native_is_refused_and_changes_nothing(copied: Path) -> None:
    before = content(copied)
    for options in (
        BuildOptions(ops="native", target="rtx:86"),
        BuildOptions(ops="native", target=FOUR),
    ):
        with pytest.raises(DeployError, match=NO_SUCH_OP) as caught:
            build_bundle(copied, options)
        assert "--ops plugin" in caught.value.hint
        assert content(copied) == before


def test_a_split_demonstration_model(tmp_path: Path) -> None:
    model = load_instance_model(
        ROOT / "export" / "demo_instance.toml", ROOT / "demo" / "demo_instance.safetensors"
    )
    bundle = instance_bundle(model, tmp_path, (256, 256), detections=20, layout="split")
    assert set(custom(bundle / "detector.onnx").values()) == {"PointRendNMS", "PointRendRoIAlign"}
    masks = {"PointRendSample", "PointRendSampleRoIs", "PointRendUncertain"}
    assert masks <= set(custom(bundle / "masks.onnx").values())
    (one,) = build_bundle(bundle, BuildOptions(target="rtx:86")).built
    assert [engine.file.split("/")[-1] for engine in one.record.engines] == [
        "detector.engine",
        "masks.engine",
    ]
    expect_plugins(bundle, one)
    text = explain(bundle, BuildOptions(target="rtx:86"))
    smallest, usual, largest = (
        re.search(rf"--{kind}Shapes=(\S+)", text) for kind in ("min", "opt", "max")
    )
    assert smallest and "boxes:1x4" in smallest[1] and "classes:1" in smallest[1].split(",")
    for sizes in (usual, largest):
        assert sizes and "boxes:20x4" in sizes[1] and "classes:20" in sizes[1].split(",")


def test_the_demonstration_model_with_the_standard_mask_head(tmp_path: Path) -> None:
    model = load_instance_model(
        ROOT / "export" / "demo_instance_standard.toml",
        ROOT / "demo" / "demo_instance_standard.safetensors",
    )
    bundle = instance_bundle(model, tmp_path, (256, 256), detections=20)
    (one,) = build_bundle(bundle, BuildOptions(target="rtx:86")).built
    expect_plugins(bundle, one)
    assert set(custom(bundle / "model.onnx").values()) == {"PointRendNMS", "PointRendRoIAlign"}


@pytest.mark.parametrize("name", ["pointrend_rcnn_R50", "mask_rcnn_R50"])
def test_resnet50_instance_models(name: str, tmp_path: Path) -> None:
    model = golden_differences_instance.golden_model(name)
    bundle = instance_bundle(model, tmp_path, (480, 640), detections=20)
    built = build_bundle(bundle, BuildOptions(target=FOUR)).built
    assert len(built) == 4
    for one in built:
        expect_plugins(bundle, one)
    with pytest.raises(DeployError, match=NO_SUCH_OP):
        build_bundle(bundle, BuildOptions(ops="native", target="rtx:86"))


def test_resnet101_semantic_with_8192_points(tmp_path: Path) -> None:
    model = golden_differences.golden_model("pointrend_semantic_R101_cityscapes")
    bundle = semantic_bundle(model, tmp_path, (512, 1024))
    nodes = onnx.load(bundle / "model.onnx").graph.node
    points = {
        attribute.i
        for node in nodes
        if node.domain == "pointrend"
        for attribute in node.attribute
        if attribute.name == "k"
    }
    assert points == {8192}
    for ops in ("plugin", "native"):
        options = BuildOptions(ops=ops, target=FOUR)  # type: ignore[arg-type]
        built = build_bundle(bundle, options).built
        assert [one.name for one in built] == [
            f"rtx-sm{capability}-fp32-{ops}" for capability in (80, 86, 89, 120)
        ]
        for one in built:
            expect_plugins(bundle, one, ops)


def test_resnet50_semantic_without_points(tmp_path: Path) -> None:
    bundle = semantic_bundle(
        golden_differences.golden_model("semantic_fpn_R50"), tmp_path, (512, 512)
    )
    for ops in ("plugin", "native"):  # its labels are upsampled by a custom node
        options = BuildOptions(ops=ops, target="rtx:86")  # type: ignore[arg-type]
        (one,) = build_bundle(bundle, options).built
        expect_plugins(bundle, one, ops)
