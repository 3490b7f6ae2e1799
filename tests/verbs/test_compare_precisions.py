"""compare --precision: which columns there are, what runs them, what fails, what is recorded."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from typer.testing import CliRunner

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.bundle.records import EngineFile, EngineRecord, QuantizedRecord
from pointrend_deploy.cli import app
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.parity import columns as compare_precisions
from pointrend_deploy.parity.columns import asked
from pointrend_deploy.parity.gates import cautions
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.record.precisions import PrecisionColumn
from pointrend_deploy.run.backends.onnxrt import OnnxRunner
from pointrend_deploy.run.runner import Precision
from pointrend_deploy.verbs.compare import CompareResult, compare_bundle, record
from tests.conftest import Exporter, labels_of

ENGINE = EngineRecord(
    builder="tensorrt",
    version="10.3.0",
    platform="Linux aarch64",
    capability=87,
    gpu="Orin",
    precision="fp16",
    ops="plugin",
    workspace_mib=1024,
    plugin_sha256=None,
    plugin_tensorrt=None,
    timing_cache=None,
    engines=(
        EngineFile(
            file="engines/a/model.engine",
            sha256="0" * 64,
            source="model.fp16.onnx",
            source_sha256="0" * 64,
            size=2_500_000,
        ),
    ),
)


def perturbed(path: Path, share: float, only: str = "") -> bytes:
    """A graph with noise on its weights, as a share of each one's largest value."""
    model, rng = onnx.load(str(path)), np.random.default_rng(0)
    for each in model.graph.initializer:
        if each.name.endswith("weight") and each.name.startswith(only) and share:
            weight = numpy_helper.to_array(each)
            noise = share * np.abs(weight).max() * rng.standard_normal(weight.shape)
            each.CopyFrom(numpy_helper.from_array((weight + noise).astype(np.float32), each.name))
    return model.SerializeToString()


def put(folder: Path, graphs: Mapping[Precision, bytes]) -> Bundle:
    """Add graphs of other precisions to a bundle."""
    files = {f"model.{name}.onnx": raw for name, raw in graphs.items()}

    (file,) = ENGINE.engines
    digest = hashlib.sha256(graphs.get("fp16", b"")).hexdigest()
    of_today = msgspec.structs.replace(
        ENGINE, engines=(msgspec.structs.replace(file, source_sha256=digest),)
    )

    def change(manifest: Manifest) -> Manifest:
        record = QuantizedRecord(
            fallback="fp16", int8=("a", "b"), left_out={"c": "a predictor"}, int8_flops=0.97,
            method="entropy", pictures=12,
        )  # fmt: skip
        return msgspec.structs.replace(
            manifest,
            graphs={**manifest.graphs, **{name: f"model.{name}.onnx" for name in graphs}},
            quantized={"int8": record} if "int8" in graphs else {},
            engines={"orin-fp16": of_today, "orin-fp16-old": ENGINE},
        )

    return Bundle.open(folder).update(files, change)


@pytest.fixture
def bundle(exported: Exporter, tmp_path: Path) -> Path:
    """A bundle of this test's own, with an fp16 and an int8 graph that are off by little."""
    folder = tmp_path / "bundle"
    shutil.copytree(exported(), folder)
    graph = folder / "model.onnx"
    put(folder, {"fp16": perturbed(graph, 0), "int8": perturbed(graph, 1e-3)})
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 255, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((120, 90)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def labels(bundle: Path, images: Path, tmp_path: Path) -> Path:
    """The FP32 graph's own labels as the truth."""
    from pointrend_deploy.verbs.run import RunOptions, run_bundle

    run_bundle(bundle, images, tmp_path / "ran", RunOptions("onnx"))
    folder = tmp_path / "labels"
    folder.mkdir()
    for path in (tmp_path / "ran" / "labels").glob("*.png"):
        Image.fromarray(labels_of(path)).save(folder / path.name)
    return folder


def column(result: CompareResult, name: str) -> PrecisionColumn:
    assert result.precisions is not None
    return next(each for each in result.precisions.columns if each.precision == name)


def test_every_precision_is_a_column_and_the_record_keeps_them(
    bundle: Path, images: Path, labels: Path
) -> None:
    given = ["--images", str(images), "--labels", str(labels), "--precision", "all"]
    done = CliRunner().invoke(app, ["compare", str(bundle), *given])
    assert done.exit_code in (0, 3), done.output
    table = results.of_bundle(Bundle.open(bundle)).precisions
    assert table is not None
    fp32, fp16, int8 = table.columns
    assert (fp32.precision, fp16.precision, int8.precision) == ("fp32", "fp16", "int8")
    assert fp16.agrees_fp32 == 1.0 and fp16.truth == fp32.truth
    assert all(row.noise == 0 for row in fp16.stages)
    assert fp16.simulated and not fp32.simulated
    assert fp16.engines == {"orin-fp16": 2_500_000}, "one of a graph that is no more is left out"
    assert fp16.graph_bytes == (bundle / "model.fp16.onnx").stat().st_size
    assert int8.agrees_fp32 is not None and int8.agrees_fp32 < 1.0
    assert int8.truth is not None and fp32.truth is not None
    assert (int8.truth.miou or 0) < (fp32.truth.miou or 0)
    assert 0 < int8.points[-1].share < 1
    assert int8.agrees_least is not None and int8.agrees_least <= int8.agrees_fp32
    assert int8.agrees_least_at in ("0", "1") and fp16.agrees_least == 1.0
    assert int8.cautions == cautions(int8) and int8.cautions[0].value == int8.agrees_fp32
    assert int8.intervals == (), "two pictures"
    assert "2 pictures cannot show how far the scores would differ" in done.output
    assert (int8.int8_layers, int8.int8_flops, int8.method, int8.pictures) == (
        2,
        0.97,
        "entropy",
        12,
    )
    assert int8.left_out == {"c": "a predictor"}
    assert "ONNX Runtime simulation on the CPU; not an engine" in done.output
    page = (bundle / "report.html").read_text()
    assert "Where the error enters" in page and "a predictor" in page
    assert "2.5 MB" in page
    assert "simulation" in (bundle / "report.md").read_text()


def test_the_first_spoilt_block_is_named(bundle: Path, images: Path, tmp_path: Path) -> None:
    block = "backbone.bottom_up.blocks.5"
    put(bundle, {"fp16": perturbed(bundle / "model.onnx", 0.3, f"{block}.")})
    result = compare_bundle(bundle, images, precisions=("fp32", "fp16"), out=tmp_path / "out")
    assert f"fp16: the error enters at {block} (" in result.summary()
    assert "; the stage before it equals fp32's)" in result.summary()
    rows = {row.stage: row.noise for row in column(result, "fp16").stages}
    assert rows["backbone.bottom_up.blocks.4"] == 0 and rows[block] != 0


def test_a_drop_ends_with_3_and_without_a_truth_only_fp16s_labels_are_held(
    bundle: Path, images: Path, labels: Path, tmp_path: Path
) -> None:
    put(bundle, {name: perturbed(bundle / "model.onnx", 0.2) for name in ("fp16", "int8")})
    given = ["compare", str(bundle), "--images", str(images), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*given, "--labels", str(labels), "--precision", "fp32,int8"])
    assert done.exit_code == 3
    assert "failed: int8, drop of mIoU" in done.output
    assert "FAILED: int8 beside fp32" in done.output
    assert "passed: onnx against torch" in done.output, "the FP32 column is held as ever"

    done = CliRunner().invoke(app, [*given, "--precision", "int8"])
    assert done.exit_code == 0
    assert "int8: its accuracy is not gated" in done.output
    assert "WARNING: int8: the share of labels equal to fp32's is" in done.output
    assert "not gated" in (tmp_path / "out" / "report.html").read_text()

    done = CliRunner().invoke(app, [*given, "--precision", "fp16"])
    assert done.exit_code == 3
    assert "failed: fp16, labels that agree with fp32" in done.output
    assert "loses more than its limits allow" in (tmp_path / "out" / "report.html").read_text()


def test_a_comparison_without_precisions_keeps_the_table_and_an_older_graph_is_told(
    bundle: Path, images: Path
) -> None:
    record(compare_bundle(bundle, images, precisions=("fp16",)))
    result = compare_bundle(bundle, images)
    assert result.precisions is None and "simulation" not in result.summary()
    record(result)
    assert results.of_bundle(Bundle.open(bundle)).precisions is not None
    assert "another one today" not in (bundle / "report.html").read_text()
    put(bundle, {"fp16": perturbed(bundle / "model.onnx", 0.01)})
    done = CliRunner().invoke(app, ["report", str(bundle)])
    assert done.exit_code == 0
    assert "fp16: the bundle's graph is another one today" in (bundle / "report.html").read_text()


class Engine(OnnxRunner):
    """An engine played by the graph it would have been built from."""

    name = "tensorrt"

    def __init__(self, bundle: Bundle, precision: Precision, engine: str) -> None:
        super().__init__(bundle, precision)
        self.engine = engine


def test_engines_are_columns_without_stages(
    bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_as: list[tuple[str, str]] = []

    def open_runner(
        opened: Bundle, runner: str, *, engine: str | None = None, precision: Precision
    ) -> OnnxRunner:
        opened_as.append((runner, precision))
        if runner == "onnx":
            return OnnxRunner(opened, precision)
        return Engine(opened, precision, engine or f"orin-{precision}")

    monkeypatch.setattr(compare_precisions, "open_runner", open_runner)
    out = tmp_path / "out"
    result = compare_bundle(bundle, images, runner="tensorrt", precisions=("fp16",), out=out)
    assert sorted(opened_as) == [("onnx", "fp32"), ("tensorrt", "fp16")]
    fp32, fp16 = column(result, "fp32"), column(result, "fp16")
    assert (fp32.runner, fp32.engine) == ("onnx", None)
    assert (fp16.runner, fp16.engine, fp16.simulated) == ("tensorrt", "orin-fp16", False)
    assert fp16.agrees_fp32 == 1.0
    assert fp16.stages == fp16.points == ()
    said = result.summary()
    assert "no stages and no points: engines give outputs only" in said
    assert "simulation" not in said and "orin-fp16" in said
    record(result, out)
    assert "engines give outputs only" in (out / "report.html").read_text()


def test_what_is_asked_for(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert asked(opened, ("all",), "onnx") == ("fp32", "fp16", "int8")
    assert asked(opened, ("int8", "fp32", "int8"), "onnx") == ("fp32", "int8")
    assert asked(opened, ("all",), "tensorrt") == ("fp16",)
    assert asked(opened, ("fp16",), "tensorrt", "orin-fp16") == ("fp16",)
    for names in ((), ("fp8",), ("all", "fp16")):
        with pytest.raises(UsageError, match="takes fp32, fp16 and int8"):
            asked(opened, names, "onnx")
    with pytest.raises(UsageError, match="one engine, of one precision"):
        asked(opened, ("fp16", "int8"), "tensorrt", "orin-fp16")
    with pytest.raises(DeployError, match="no engine of int8"):
        asked(opened, ("fp16", "int8"), "tensorrt")
    bare = Bundle(bundle, msgspec.structs.replace(opened.manifest, engines={}))
    with pytest.raises(DeployError, match="has no engines"):
        asked(bare, ("all",), "tensorrt")


def test_a_precision_the_bundle_lacks_is_refused_before_the_work(
    exported: Exporter, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the work had begun")

    monkeypatch.setattr(compare_precisions, "open_runner", never)
    with pytest.raises(DeployError, match="no int8 graph") as caught:
        compare_bundle(exported(), images, precisions=("fp32", "int8"))
    assert f"quantize {exported()} --precision int8" in caught.value.hint
