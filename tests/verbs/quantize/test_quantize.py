"""The verb `quantize` for FP16: options, what is written, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from pointrend_deploy.bundle.folder import MODEL, Bundle
from pointrend_deploy.bundle.manifest import read_manifest
from pointrend_deploy.bundle.records import EngineFile, QuantizedRecord
from pointrend_deploy.cli import app
from pointrend_deploy.errors import DeployError, ParityError, UsageError
from pointrend_deploy.parity.record.precisions import StageNoise
from pointrend_deploy.progress import Silent
from pointrend_deploy.quantize import fp16 as half
from pointrend_deploy.quantize.fp16 import HalfGraph, to_half
from pointrend_deploy.run.backends.trt import check_engine
from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.verbs.quantize import quantize as verb
from pointrend_deploy.verbs.quantize.check import Measured, check_graph, compared
from pointrend_deploy.verbs.quantize.instance import InstanceTask
from pointrend_deploy.verbs.quantize.margins import margin_values, margins
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.quantize import quantize_bundle
from pointrend_deploy.verbs.quantize.reference import reference_of
from pointrend_deploy.verbs.quantize.semantic import LabelAgreement, SemanticTask
from tests.conftest import Exporter
from tests.fixtures.deciding_graphs import step
from tests.fixtures.small_graphs import Graph
from tests.fixtures.tiny_bundle import colour_picture, tiny_manifest, write_bundle
from tests.fixtures.tiny_instances import things_manifest
from tests.quantize.test_islands import half_and_back
from tests.run.backends.test_engine_check import HOST, NAME, with_engine

FP16 = QuantizeOptions("fp16")
HW = (64, 96)


def labelling_graph() -> ModelProto:
    """Convolutions to coarse logits, upsampled; ``labels`` are the highest of them."""
    g = Graph(image=(1, 3, *HW))
    x = g.relu(g.conv("backbone.stem", "image", 8, 3, 3, 3))
    x = g.relu(g.conv("backbone.res2", x, 8, 8, 3, 3, strides=[2, 2]))
    g.conv("head.predictor", x, 3, 8, 1, 1)
    g.nodes[-1].output[0] = "coarse"
    scales = g.constant("scales", np.array([1, 1, 2, 2], np.float32))
    logits = g.node("Resize", "head.resize", "coarse", "", scales, mode="linear")
    best = g.node("ArgMax", "head.argmax", logits, axis=1, keepdims=0)
    g.node("Cast", "head.cast", best, to=TensorProto.UINT8)
    g.nodes[-1].output[0] = "labels"
    graph = helper.make_graph(
        g.nodes,
        "labelling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, *HW))],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, (1, *HW))],
        [numpy_helper.from_array(values, name) for name, values in g.constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    raw = labelling_graph().SerializeToString()
    return write_bundle(tmp_path / "bundle", tiny_manifest(HW), {MODEL: raw})


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"precision": "fp16", "keep_fp16": ("a",)}, "--keep-fp16"),
        ({"precision": "fp16", "also_int8": ("a",)}, "--also-int8"),
        ({"precision": "fp16", "ranges": Path("r.json")}, "--ranges"),
        ({"precision": "fp16", "method": "max"}, "--method"),
        ({"precision": "fp16", "percentile": 99.0}, "--percentile"),
        ({"precision": "fp16", "fallback": "fp32"}, "--fallback"),
        ({"precision": "fp16", "sensitivity": True}, "--sensitivity"),
        ({"precision": "fp16", "images": Path("p")}, "--images"),
        ({"precision": "fp16", "max_drop": 0.0}, "--max-drop"),
        ({"precision": "fp16", "apply": True}, "--apply"),
        ({"precision": "int8", "method": "max", "percentile": 99.0}, "--percentile"),
        ({"precision": "int8", "percentile": 0.0}, "--percentile"),
        ({"precision": "int8", "percentile": 100.5}, "--percentile"),
        ({"precision": "int8", "images": Path("p")}, "--images"),
        ({"precision": "int8", "max_drop": 0.5}, "--max-drop"),
        ({"precision": "int8", "apply": True}, "--apply"),
        ({"precision": "int8", "sensitivity": True}, "--images"),
        (
            {"precision": "int8", "sensitivity": True, "images": Path("p"), "max_drop": 0.0},
            "--max-drop",
        ),
        (
            {
                "precision": "int8",
                "sensitivity": True,
                "images": Path("p"),
                "max_drop": float("nan"),
            },
            "--max-drop",
        ),
        (
            {"precision": "int8", "sensitivity": True, "images": Path("p"), "apply": True},
            "--max-drop",
        ),
    ],
)
def test_options_that_make_no_sense_together(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as error:
        QuantizeOptions(**options).check()
    assert named in error.value.message + error.value.hint


@pytest.mark.parametrize(
    "options",
    [
        FP16,
        QuantizeOptions("fp16", keep_fp32=("backbone",)),
        QuantizeOptions("int8", method="percentile", percentile=100.0, fallback="fp32"),
        QuantizeOptions("int8", sensitivity=True, images=Path("p"), max_drop=0.5, apply=True),
    ],
)
def test_options_that_do(options: QuantizeOptions) -> None:
    options.check()


def test_a_bundle_gains_a_graph_that_is_half_as_large_and_runs(bundle: Path) -> None:
    result = quantize_bundle(bundle, FP16)
    assert result.files == ("model.fp16.onnx",)
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    assert manifest.graphs == {"fp32": MODEL, "fp16": "model.fp16.onnx"}
    fp32_sha256 = manifest.files[MODEL]
    assert manifest.quantized == {
        "fp16": QuantizedRecord(fallback="fp16", sources={MODEL: fp32_sha256})
    }
    picture = colour_picture(50, 70)
    labels = [open_runner(opened, "onnx", precision=p)(picture)["labels"] for p in ("fp32", "fp16")]  # type: ignore[call-overload,index]
    assert (labels[0] == labels[1]).mean() > 0.99
    assert isinstance(result.measured.agreement, LabelAgreement)
    assert result.measured.agreement.pictures == 3
    assert result.measured.worst is not None
    assert result.measured.worst.stage == "coarse"


def test_what_it_says(bundle: Path) -> None:
    said = quantize_bundle(bundle, QuantizeOptions("fp16", keep_fp32=("backbone.stem",))).summary()
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert lines["graph"].startswith("model.fp16.onnx: ")
    assert "labels agree with FP32 on" in lines["measured"]
    assert "dB at the noisiest stage, coarse (3 generated pictures" in lines["measured"]
    assert "simulated in ONNX Runtime" in lines["measured"]
    assert "kept FP32   backbone.stem\n" in said
    assert lines["next"].endswith("--precision fp32,fp16")


def test_the_command_line(bundle: Path) -> None:
    done = CliRunner().invoke(app, ["quantize", str(bundle), "--precision", "fp16"])
    assert done.exit_code == 0, done.output
    assert "model.fp16.onnx" in done.stdout
    assert "fp16" in read_manifest(bundle).graphs


def test_layers_kept_in_fp32_are_recorded(bundle: Path) -> None:
    result = quantize_bundle(bundle, QuantizeOptions("fp16", keep_fp32=("*.res2", "*predictor")))
    assert result.record.fp32 == ("backbone.res2", "head.predictor")
    graph = onnx.load(bundle / "model.fp16.onnx")
    types = {t.name: t.data_type for t in graph.graph.initializer}
    assert types["backbone.stem.weight"] == TensorProto.FLOAT16
    for name in result.record.fp32:
        assert types[f"{name}.weight"] == TensorProto.FLOAT


def test_an_fp16_graph_without_a_layer_in_fp16_is_refused(bundle: Path) -> None:
    before = contents(bundle)
    with pytest.raises(UsageError, match=r"no layer of model\.onnx is left in FP16"):
        quantize_bundle(bundle, QuantizeOptions("fp16", keep_fp32=("*",)))
    assert contents(bundle) == before


def test_a_pattern_that_means_nothing(bundle: Path) -> None:
    before = contents(bundle)
    with pytest.raises(UsageError, match=r"--keep-fp32 'backbone\.res9'"):
        quantize_bundle(bundle, QuantizeOptions("fp16", keep_fp32=("backbone.res9",)))
    assert contents(bundle) == before


def test_made_again_it_replaces_the_first_and_engines_of_that_are_refused(bundle: Path) -> None:
    first = quantize_bundle(bundle, FP16).bundle
    name = "model.fp16.onnx"
    engine = EngineFile(
        file=f"engines/{NAME}/model.engine",
        sha256=sha256_of_text(b"an engine"),
        source=name,
        source_sha256=first.manifest.files[name],
    )
    with_engine(first, engines=(engine,))
    check_engine(Bundle.open(bundle), NAME, HOST)
    same = quantize_bundle(bundle, FP16)  # the same bytes: the engine stays what it was
    assert not any("refused" in note for note in same.notes)
    check_engine(Bundle.open(bundle), NAME, HOST)
    other = quantize_bundle(bundle, QuantizeOptions("fp16", keep_fp32=("backbone.stem",)))
    assert f"refused from now on: {NAME}" in other.summary()
    with pytest.raises(DeployError, match=r"another model\.fp16\.onnx"):
        check_engine(Bundle.open(bundle), NAME, HOST)


def sha256_of_text(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def plant(monkeypatch: pytest.MonkeyPatch, name: str, factor: float) -> None:
    """Have an initializer of the FP16 graph multiplied."""

    def broken(model: ModelProto, keep_fp32: Any = ()) -> HalfGraph:
        made = to_half(model, keep_fp32)
        tensor = next(t for t in made.model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor) * np.float16(factor)
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        return made

    monkeypatch.setattr(half, "to_half", broken)


@pytest.mark.parametrize(
    ("factor", "what"), [(0.5, "SNR of"), (60000.0, "NaN or infinite"), (0.0, "SNR of")]
)
def test_a_broken_graph_is_refused_and_the_bundle_left_alone(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, factor: float, what: str
) -> None:
    before = contents(bundle)
    plant(monkeypatch, "backbone.res2.weight", factor)
    with pytest.raises(ParityError) as error:
        quantize_bundle(bundle, FP16)
    assert "stage coarse of the fp16 graph" in error.value.message
    assert what in error.value.message
    assert "--keep-fp32" in error.value.hint
    assert contents(bundle) == before


def test_weights_beyond_fp16_name_the_layer(bundle: Path, tmp_path: Path) -> None:
    graph = onnx.load(bundle / MODEL)
    tensor = next(t for t in graph.graph.initializer if t.name == "backbone.stem.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0] *= 1e6
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    other = write_bundle(tmp_path / "b", tiny_manifest(HW), {MODEL: graph.SerializeToString()})
    with pytest.raises(DeployError, match=r"layer backbone\.stem: .*65504"):
        quantize_bundle(other, FP16)
    assert "fp16" not in read_manifest(other).graphs


def test_an_output_of_another_type_or_not_finite_is_refused(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    model = labelling_graph()
    other = labelling_graph()
    del other.graph.node[-1]  # the Cast to uint8
    other.graph.node[-1].output[0] = "labels"
    other.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ParityError, match="labels of the fp16 graph is int64"):
        compared(reference_of(opened, {MODEL: model}, Silent()), {MODEL: other}, "fp16", Silent())


def test_a_finished_graph_is_checked() -> None:
    model = step()
    made = to_half(model).model
    check_graph(model, made, "fp16")
    rounded = ModelProto.FromString(made.SerializeToString())
    half_and_back(rounded, "step0.neg.out")
    with pytest.raises(DeployError, match=r"step0\.uncertain.*rounded"):
        check_graph(model, onnx.shape_inference.infer_shapes(rounded), "fp16")
    untrue = ModelProto.FromString(made.SerializeToString())
    said = next(v for v in untrue.graph.value_info if v.name == "head.predictor.out")
    said.type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(DeployError, match="not sound ONNX"):
        check_graph(model, untrue, "fp16")
    del made.functions[:]
    with pytest.raises(DeployError):
        check_graph(model, made, "fp16")


def test_both_graphs_of_a_split_layout_are_recorded_together() -> None:
    manifest = things_manifest(layout="split")
    sources = {"detector.onnx": "a", "masks.onnx": "b"}
    manifest = msgspec.structs.replace(manifest, files=sources)
    files = {name: verb.file_of(name, "fp16") for name in sources}
    record = QuantizedRecord(fallback="fp16", sources=sources)
    changed = verb._recorded(manifest, "fp16", files, record)
    assert changed.graphs_of("fp16") == ("detector.fp16.onnx", "masks.fp16.onnx")
    assert changed.graphs_of("fp32") == ("detector.onnx", "masks.onnx")
    other = msgspec.structs.replace(manifest, files={**sources, "masks.onnx": "c"})
    with pytest.raises(DeployError, match=r"masks\.onnx was replaced"):
        verb._recorded(other, "fp16", files, record)


def test_detections_are_counted_by_whom_they_match() -> None:
    def found(boxes: list[list[float]], fill: list[bool]) -> Instances:
        count = len(boxes)
        return Instances(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
            classes=np.zeros(count, np.int64),
            hw=(40, 40),
            patches=[(0, 0, np.array([[True, each]])) for each in fill],
        )

    a = found([[0, 0, 10, 10], [20, 20, 30, 30]], [True, True])
    b = found([[0, 0, 10, 9]], [False])
    task = InstanceTask(things_manifest())
    both = task.agreement([a, a], [b, a])
    assert (both.pictures, both.matched, both.only_fp32, both.only_made) == (2, 3, 1, 0)
    assert both.mask_iou == pytest.approx((0.5 + 1 + 1) / 3)
    assert "3 of FP32's 4 detections matched, 0 more, masks' IoU 0.8333" in both.line()
    none = task.agreement([found([], [])], [found([], [])])
    assert none.mask_iou is None
    assert "0 of FP32's 0 detections" in none.line()


def test_few_equal_labels_without_noise_are_noted() -> None:
    sound = Measured(LabelAgreement(pictures=1, least=0.995))
    assert sound.notes() == ()
    few = Measured(LabelAgreement(1, 0.97, tied=0.98), worst=StageNoise(stage="p2", snr_db=45.0))
    assert "at 98.0% of these pixels FP32's own two best classes are nearly" in few.notes()[0]
    assert "sensitivity" not in few.notes()[0]
    assert "nearly tied" in few.notes()[0]
    assert replace(few, worst=StageNoise(stage="p2", snr_db=20.0)).notes() == ()
    noisy = replace(few, worst=StageNoise(stage="p2", snr_db=3.0))
    (told,) = noisy.notes()
    assert "p2 is a third of the signal or more; quantize --sensitivity" in told
    assert "and 5 % beyond; quantize" in replace(noisy, outside=" and 5 % beyond").notes()[0]


@pytest.mark.parametrize("tied", [None, 0.5])
def test_no_cause_is_named_that_was_not_measured(tied: float | None) -> None:
    (note,) = Measured(LabelAgreement(1, 0.97, tied)).notes()
    assert note.startswith("3.0% of the labels differ from FP32's")
    assert ("at 50.0% of these pixels" in note) == (tied is not None)
    assert ("tied" in note) == (tied is not None)
    for next_step in ("quantize --sensitivity measures which", "compare --precision all"):
        assert next_step in note


def test_ties_are_measured_at_the_pixels_that_differ() -> None:
    """On a canvas of 32 x 64 the margins are 1 but for a column of 0.01."""
    margin = np.ones((1, 32, 64), np.float32)
    margin[:, :, 7] = 0.01
    indices = np.array([[0, 1]])
    logits = np.array([[[5.0, 3.0], [4.0, 3.0], [0.0, 2.5]]], np.float32)
    found = margins(-margin.reshape(1, -1), indices, logits)
    assert found.reshape(32, 64)[0, :3].tolist() == [1.0, 0.0, 1.0]
    task = SemanticTask(tiny_manifest((32, 64)))
    fp32 = np.zeros((32, 64), np.uint8)
    explained = [(-margin.reshape(1, -1), indices, logits)]

    def tied(columns: list[int]) -> float | None:
        other = fp32.copy()
        other[1:, columns] = 1
        return task.agreement([fp32], [other], explained).tied

    assert tied([]) is None
    assert tied([7]) == 1.0
    assert tied([7, 8]) == 0.5
    assert task.agreement([fp32], [1 - fp32]).tied is None, "not measured"


@pytest.mark.parametrize("ops", ["plugin", "native"])
def test_the_margins_are_those_of_the_logits(exported: Exporter, ops: str) -> None:
    """Both kinds of graphs name the values from which the margins follow, on the labels' grid."""
    bundle = Bundle.open(exported(ops=ops))
    graph = onnx.load(bundle.path / MODEL)
    names = margin_values(graph)
    assert names[1:] == ("step3.indices", "step3.point_logits")
    reference = reference_of(bundle, {MODEL: graph}, Silent())
    height, width = bundle.manifest.canvas.padded_hw
    found = margins(*reference.explained[0])
    assert found.shape == (1, height * width)
    assert found.min() >= 0
    assert margin_values(labelling_graph()) == ()
