"""Engines of real bundles, built by TensorRT-RTX for GPUs that are not here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx
import pytest

from pointrend_deploy.bundle.folder import Bundle, sha256_of
from pointrend_deploy.bundle.manifest import MANIFEST, encode_manifest, read_manifest
from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.engine.graphs import weighted_nodes
from pointrend_deploy.engine.shape import in_short
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.run.backends.trt import Host, check_engine
from pointrend_deploy.verbs.build import BuildOptions, build_bundle, explain
from pointrend_deploy.verbs.export.export import export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions
from tests.cli.test_cli import cli
from tests.conftest import Exporter
from tests.engine.graphs import half_convs, quantized_convs
from tests.engine.instances import split_bundle
from tests.engine.rtx import built_library, rtx_needed
from tests.repository import ROOT

Copier = Callable[..., Path]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rtx_needed()
    return built_library(tmp_path_factory)


@pytest.fixture
def plugins(library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POINTREND_PLUGINS", str(library))
    return library


@pytest.fixture
def copied(exported: Exporter, tmp_path: Path) -> Copier:
    """A copy of an exported bundle that a test may change."""

    def copy(**options: object) -> Path:
        return Path(shutil.copytree(exported(**options), tmp_path / "bundle"))

    return copy


def with_graph(bundle: Path, precision: str, model: onnx.ModelProto) -> None:
    """Put one more graph into a bundle, as `quantize` does."""
    name = f"model.{precision}.onnx"
    onnx.save(model, bundle / name)
    old = read_manifest(bundle)
    types = weighted_nodes(model)
    record = QuantizedRecord(
        fallback="fp32" if "float32" in types.values() else "fp16",
        int8=tuple(node for node, kind in types.items() if kind == "int8"),
    )
    new = msgspec.structs.replace(
        old,
        graphs={**old.graphs, precision: name},
        quantized={**old.quantized, precision: record},
        files={**old.files, name: sha256_of(bundle / name)},
    )
    (bundle / MANIFEST).write_bytes(encode_manifest(new))


def test_the_demonstration_model_for_four_gpus(plugins: Path, tmp_path: Path) -> None:
    weights = ROOT / "demo" / "demo_semantic.safetensors"
    bundle = tmp_path / "demo"
    options = ExportOptions(size_hw=(128, 256))
    export_bundle(ROOT / "export" / "demo_semantic.toml", weights, bundle, options)
    graph = onnx.load(bundle / "model.onnx")
    custom = {node.name for node in graph.graph.node if node.domain == "pointrend"}
    assert len(custom) == 9  # 3 samplers; selection, upsampling and refinement of 2 steps
    result = build_bundle(bundle, BuildOptions(target="rtx:80,86,89,120"))
    assert [one.name for one in result.built] == [
        f"rtx-sm{capability}-fp32-plugin" for capability in (80, 86, 89, 120)
    ]
    opened = Bundle.open(bundle)
    for one in result.built:
        assert one.engines[0].plugins == len(custom)
        folder = bundle / "engines" / one.name
        assert {path.name for path in folder.iterdir()} == {
            "model.engine",
            "layers.json",
            "build.log",
        }
        table = json.loads((folder / "layers.json").read_text())["model.engine"]
        assert set(table["weighted"].values()) == {"float32"}
        named = {name for layer in table["layers"] for name in layer["nodes"]}
        assert custom <= named
        log = (folder / "build.log").read_text()
        assert log.count("Successfully created plugin: PointRend") == len(custom)
        record = opened.manifest.engines[one.name]
        assert record == one.record
        assert (record.builder, record.capability, record.gpu) == (
            "tensorrt_rtx",
            int(one.name.split("-")[1][2:]),
            None,
        )
        assert record.plugin_sha256 == sha256_of(plugins)
        (engine,) = record.engines
        assert engine.shape == one.engines[0].shape
        assert engine.shape is not None
        assert sum(engine.shape.plugins.values()) == len(custom)
        running = [layer for layer in table["layers"] if layer["kind"] not in ("signal", "wait")]
        assert engine.shape.layers == len(running)
        assert in_short(engine.shape) in result.summary()
        assert (
            engine.sha256 == opened.manifest.files[engine.file] == sha256_of(bundle / engine.file)
        )
        assert engine.source_sha256 == sha256_of(bundle / "model.onnx")
    assert f"plugins {len(custom)}, " in result.summary()
    assert not list((bundle / "engines").glob(".*"))


@pytest.mark.parametrize(
    "options", [{}, {"outputs": ("labels", "logits", "stages"), "preprocess": "in-graph"}]
)
def test_native_has_no_plugin(copied: Copier, options: dict[str, object]) -> None:
    rtx_needed()
    bundle = copied(**options)
    (one,) = build_bundle(bundle, BuildOptions(ops="native", target="rtx:86")).built
    assert one.name == "rtx-sm86-fp32-native"
    assert one.engines[0].plugins == 0
    assert (one.record.plugin_sha256, one.record.plugin_tensorrt) == (None, None)


def test_a_bundle_exported_native(copied: Copier) -> None:
    rtx_needed()
    bundle = copied(ops="native")
    (one,) = build_bundle(bundle, BuildOptions(target="rtx:89")).built
    assert one.name == "rtx-sm89-fp32-native"
    with pytest.raises(DeployError, match="exported with --ops native"):
        build_bundle(bundle, BuildOptions(ops="plugin", target="rtx:89"))


def test_each_precision_is_read_off_the_layers(plugins: Path, copied: Copier) -> None:
    bundle = copied()
    model = onnx.load(bundle / "model.onnx")
    with_graph(bundle, "fp16", half_convs(model))
    with_graph(bundle, "int8", quantized_convs(model))
    for precision, name in (("fp16", "float16"), ("int8", "int8")):
        options = BuildOptions(precision=precision, target="rtx:86")  # type: ignore[arg-type]
        (one,) = build_bundle(bundle, options).built
        meant = weighted_nodes(onnx.load(bundle / f"model.{precision}.onnx"))
        assert one.engines[0].table.weighted == meant
        assert sum(found == name for found in meant.values()) > 20, precision
    assert set(Bundle.open(bundle).manifest.engines) == {
        "rtx-sm86-fp16-plugin",
        "rtx-sm86-int8-plugin",
    }


def test_a_graph_that_is_not_what_it_is_called(plugins: Path, copied: Copier) -> None:
    bundle = copied()
    with_graph(bundle, "fp16", onnx.load(bundle / "model.onnx"))
    before = (bundle / MANIFEST).read_bytes()
    with pytest.raises(DeployError, match="no node of the fp16 graphs computes in float16"):
        build_bundle(bundle, BuildOptions(precision="fp16", target="rtx:86"))
    assert (bundle / MANIFEST).read_bytes() == before
    assert not (bundle / "engines").exists()


def test_building_again_replaces_and_an_export_would_not(
    plugins: Path, copied: Copier, weights: Path, recipe: object
) -> None:
    bundle = copied()
    options = BuildOptions(target="rtx:86")
    build_bundle(bundle, options)
    stale = bundle / "engines" / "rtx-sm86-fp32-plugin" / "stale.txt"
    stale.write_text("of an earlier build")
    (one,) = build_bundle(bundle, options).built
    assert not stale.exists()
    manifest = Bundle.open(bundle).manifest
    listed = {name for name in manifest.files if name.startswith("engines/")}
    assert listed == {
        f"engines/{one.name}/{name}" for name in ("model.engine", "layers.json", "build.log")
    }
    assert manifest.previous == {}
    with pytest.raises(DeployError, match="also holds engines"):
        export_bundle(recipe, weights, bundle, ExportOptions(size_hw=(64, 96)))  # type: ignore[arg-type]
    engine = bundle / "engines" / one.name / "model.engine"
    engine.write_bytes(engine.read_bytes()[:-1] + b"!")
    with pytest.raises(DeployError, match=r"model\.engine is not the file"):
        Bundle.open(bundle)


def test_the_run_side_takes_what_was_built(plugins: Path, copied: Copier) -> None:
    bundle = copied()
    result = build_bundle(bundle, BuildOptions(target="rtx:120"))
    version = result.built[0].record.version
    host = Host("tensorrt_rtx", version, 120, sha256_of(plugins))
    (path,) = check_engine(result.bundle, "rtx-sm120-fp32-plugin", host)
    assert path == bundle / "engines" / "rtx-sm120-fp32-plugin" / "model.engine"


@pytest.mark.parametrize("attribute", ["k", None])
def test_a_node_the_plugin_refuses(plugins: Path, copied: Copier, attribute: str | None) -> None:
    bundle = copied()
    model = onnx.load(bundle / "model.onnx")
    node = next(n for n in model.graph.node if n.op_type == "PointRendUncertain")
    if attribute is None:
        next(a for a in node.attribute if a.name == "k").i = -1
    else:
        kept = [a for a in node.attribute if a.name != attribute]
        del node.attribute[:]
        node.attribute.extend(kept)
    replace_graph(bundle, model)
    with pytest.raises(DeployError, match=f"does not take the graph.*{node.name}"):
        build_bundle(bundle, BuildOptions(target="rtx:86"))


def test_uncertainty_of_the_wrong_type(plugins: Path, copied: Copier) -> None:
    bundle = copied()
    model = onnx.load(bundle / "model.onnx")
    position = next(i for i, n in enumerate(model.graph.node) if n.op_type == "PointRendUncertain")
    node = model.graph.node[position]
    cast = onnx.helper.make_node("Cast", [node.input[0]], ["unsure16"], name="cast", to=10)
    node.input[0] = "unsure16"
    model.graph.node.insert(position, cast)
    replace_graph(bundle, model)
    with pytest.raises(DeployError, match="unsure16 is of a type that the file does not give"):
        build_bundle(bundle, BuildOptions(target="rtx:86"))
    value = onnx.helper.make_tensor_value_info("unsure16", 10, None)
    model.graph.value_info.append(value)
    replace_graph(bundle, model)
    with pytest.raises(DeployError, match="takes float32, and unsure16 is float16"):
        build_bundle(bundle, BuildOptions(target="rtx:86"))


def replace_graph(bundle: Path, model: onnx.ModelProto) -> None:
    onnx.save(model, bundle / "model.onnx")
    old = read_manifest(bundle)
    files = {**old.files, "model.onnx": sha256_of(bundle / "model.onnx")}
    new = msgspec.structs.replace(old, files=files)
    (bundle / MANIFEST).write_bytes(encode_manifest(new))


def test_what_is_refused_before_a_builder_runs(
    copied: Copier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rtx_needed()
    bundle = copied()
    with pytest.raises(DeployError, match="no int8 graph, only fp32") as caught:
        build_bundle(bundle, BuildOptions(precision="int8", target="rtx:86"))
    assert "quantize" in caught.value.hint
    with pytest.raises(UsageError, match="compute capability 87"):
        build_bundle(bundle, BuildOptions(target="rtx:87"))
    with pytest.raises(UsageError, match="out of range"):
        build_bundle(bundle, BuildOptions(target="rtx:86", workspace_mib=0))
    monkeypatch.setenv("POINTREND_PLUGINS", str(tmp_path / "none.so"))
    with pytest.raises(DeployError, match=r"none.so is not a file") as caught:
        build_bundle(bundle, BuildOptions(target="rtx:86"))
    assert "scripts/build_plugins.sh" in caught.value.hint
    raw = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(raw[:-100])
    with pytest.raises(DeployError, match=r"model.onnx is not the file that was exported"):
        build_bundle(bundle, BuildOptions(target="rtx:86"))
    assert not (bundle / "engines").exists()


def test_explain_prints_command_lines_and_builds_nothing(plugins: Path, copied: Copier) -> None:
    bundle = copied()
    text = explain(bundle, BuildOptions(target="rtx:86", workspace_mib=256))
    form, build, _ = text.splitlines()
    assert "del m.functions[:]" in form
    assert build.startswith("tensorrt_rtx --onnx=model.plugin.onnx")
    assert f"--staticPlugins={plugins}" in build
    assert "--memPoolSize=workspace:256" in build
    assert not (bundle / "engines").exists()


def test_the_command(plugins: Path, copied: Copier) -> None:
    bundle = copied()
    done = cli("build", bundle, "--target", "rtx:86", "--ops", "native")
    assert done.returncode == 0, done.stderr
    assert "rtx-sm86-fp32-native" in done.stdout
    assert "building model.engine" in done.stderr
    done = cli("build", bundle, "--target", "jetson")
    assert done.returncode == 2
    assert "use this, or rtx:86,89,120" in done.stderr
    done = cli("doctor", POINTREND_PLUGINS=str(plugins))
    assert "TensorRT-RTX 1." in done.stdout
    assert f"{plugins}, compiled with TensorRT 10.14" in done.stdout


def test_a_split_instance_bundle(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = split_bundle(tmp_path / "split")
    (one,) = build_bundle(bundle, BuildOptions(target="rtx:86")).built
    assert [engine.file.split("/")[-1] for engine in one.record.engines] == [
        "detector.engine",
        "masks.engine",
    ]
    assert [engine.source for engine in one.record.engines] == ["detector.onnx", "masks.onnx"]
    assert [engine.plugins for engine in one.engines] == [1, 1]
    tables = json.loads((bundle / "engines" / one.name / "layers.json").read_text())
    assert set(tables) == {"detector.engine", "masks.engine"}
    text = explain(bundle, BuildOptions(target="rtx:86"))
    assert "--minShapes=boxes:1x4 --optShapes=boxes:4x4 --maxShapes=boxes:4x4" in text
    monkeypatch.setattr("pointrend_deploy.verbs.build.dynamic_sizes", lambda manifest: {})
    with pytest.raises(DeployError, match="nothing bounds the dimension R of the input boxes"):
        build_bundle(bundle, BuildOptions(target="rtx:86"))


def test_an_op_that_rtx_lacks(copied: Copier) -> None:
    rtx_needed()
    bundle = copied(ops="native")
    model = onnx.load(bundle / "model.onnx")
    inputs = ["some_boxes", "some_scores"]
    node = onnx.helper.make_node("NonMaxSuppression", inputs, ["kept"], name="suppress")
    shapes = ((1, 9, 4), (1, 2, 9))
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, 1, shape)
        for name, shape in zip(inputs, shapes, strict=True)
    )
    model.graph.node.append(node)
    replace_graph(bundle, model)
    words = r"TensorRT-RTX has no NonMaxSuppression \(node suppress\)"
    with pytest.raises(DeployError, match=words):
        build_bundle(bundle, BuildOptions(target="rtx:86"))
