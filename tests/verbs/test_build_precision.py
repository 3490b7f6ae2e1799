"""Engines of one bundle in three precisions, side by side, each what its graph and record say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import onnx
import pytest

from pointrend_deploy.bundle.folder import MODEL, Bundle
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import place
from pointrend_deploy.verbs.build import BuildOptions, build_bundle, explain
from tests.conftest import Exporter
from tests.engine.quantized import int8_of, record_of
from tests.engine.rtx import built_library, rtx_needed

THREE = ("fp32", "fp16", "int8")


def changed(
    bundle: Bundle, precision: str, record: QuantizedRecord | None, graph: bytes | None = None
) -> Bundle:
    """A graph of a precision and what the manifest says of it; None for what is not there."""
    name = f"model.{precision}.onnx"

    def change(manifest: Manifest) -> Manifest:
        quantized = {**manifest.quantized, precision: record}
        return msgspec.structs.replace(
            manifest,
            graphs={**manifest.graphs, precision: name},
            quantized={key: one for key, one in quantized.items() if one is not None},
        )

    return bundle.update({} if graph is None else {name: graph}, change)


@pytest.fixture(scope="module")
def three(exported: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with graphs in three precisions. Not to be changed."""
    rtx_needed()
    path = Path(shutil.copytree(exported(), tmp_path_factory.mktemp("three") / "bundle"))
    model = onnx.load(path / MODEL)
    bundle = Bundle.open(path)
    half = to_half(model).model.SerializeToString()
    bundle = changed(bundle, "fp16", QuantizedRecord(fallback="fp16"), half)
    changed(bundle, "int8", record_of(model), int8_of(model).SerializeToString())
    return path


@pytest.fixture
def copied(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "bundle"))


def test_three_engines_side_by_side(
    copied: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTREND_PLUGINS", str(built_library(tmp_path_factory)))
    said = {}
    for precision in THREE:
        result = build_bundle(copied, BuildOptions(precision=precision, target="rtx:86"))  # type: ignore[arg-type]
        said[precision] = result.summary()
    manifest = Bundle.open(copied).manifest
    assert set(manifest.engines) == {f"rtx-sm86-{precision}-plugin" for precision in THREE}
    sizes = {}
    for name, record in manifest.engines.items():
        (engine,) = record.engines
        sizes[record.precision] = engine.size
        assert engine.size == (copied / engine.file).stat().st_size
        table = json.loads((copied / "engines" / name / "layers.json").read_text())["model.engine"]
        model = onnx.load(copied / MODEL)
        kinds = set(table["weighted"].values())
        assert kinds == {"fp32": {"float32"}, "fp16": {"float16"}}.get(
            record.precision, {"int8", "float16"}
        )
        int8 = {node for node, kind in table["weighted"].items() if kind == "int8"}
        assert int8 == (set(place(model).int8) if record.precision == "int8" else set())
    meant = len(place(model).int8)
    assert f"products: {len(table['weighted']) - meant} in float16, {meant} in int8" in said["int8"]
    assert "precisions" not in said["fp32"]
    listed = ", ".join(f"{name} {sizes[name] / 2**20:.1f} MiB" for name in THREE)
    assert f"precisions  {listed}" in said["int8"]


def test_explain_has_no_precision_flags(copied: Path) -> None:
    for precision in THREE[1:]:
        options = BuildOptions(precision=precision, ops="native", target="rtx:86")  # type: ignore[arg-type]
        form, line, _ = explain(copied, options).splitlines()
        assert f"model.{precision}.onnx" in form
        assert f"--onnx=model.{precision}.native.onnx" in line
        assert "--fp16" not in line and "--int8" not in line and "--best" not in line


@pytest.mark.parametrize("planted", ["one less", "one more", "no record", "another graph"])
def test_a_record_that_is_not_of_the_graph(copied: Path, planted: str) -> None:
    bundle = Bundle.open(copied)
    record = bundle.manifest.quantized["int8"]
    rest = [name for name in record.left_out if name.endswith("predictor")]
    if planted == "one less":
        wrong = msgspec.structs.replace(record, int8=record.int8[1:])
        words = f"{record.int8[0]} is int8, not float16"
    elif planted == "one more":
        wrong = msgspec.structs.replace(record, int8=(*record.int8, rest[0]))
        words = f"{rest[0]} is float16, not int8"
    elif planted == "no record":
        wrong, words = None, "does not say what the int8 graph was made from"
    else:
        wrong, words = record, "is float16, not int8"
    graph = (copied / "model.fp16.onnx").read_bytes() if planted == "another graph" else None
    changed(bundle, "int8", wrong, graph)
    with pytest.raises(DeployError, match=words) as caught:
        build_bundle(copied, BuildOptions(precision="int8", ops="native", target="rtx:86"))
    assert "quantize the bundle again" in caught.value.hint
    assert not (copied / "engines").exists()


def test_what_falls_back_leaves_the_bundle_as_it_was(copied: Path) -> None:
    before = Bundle.open(copied).manifest
    with pytest.raises(DeployError, match="meant for int8 compute in float16: backbone"):
        build_bundle(copied, BuildOptions(precision="int8", ops="native", target="rtx:75"))
    assert Bundle.open(copied).manifest == before
    assert [path.name for path in (copied / "engines").iterdir()] == [
        "rtx-sm75-int8-native.failed.log"
    ]
