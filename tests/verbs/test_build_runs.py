"""`build --target this`: the fresh engine runs, and is held against its graph, before it counts.

The builder is a double that copies the graph, or a graph with a planted error, to the place of the
engine; TensorRT's runtime and CUDA are doubles too, in the process that tries engines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.manifest import MANIFEST
from pointrend_deploy.bundle.records import EngineShape
from pointrend_deploy.engine.build import Engine, Request
from pointrend_deploy.engine.flavour import Flavour
from pointrend_deploy.engine.layers import LayerTable
from pointrend_deploy.engine.targets import Gpu, Target
from pointrend_deploy.errors import DeployError, ParityError, UsageError
from pointrend_deploy.progress import Progress
from pointrend_deploy.verbs import build
from pointrend_deploy.verbs.build import BuildOptions, build_bundle
from pointrend_deploy.verbs.engine_check import check_engines
from tests.fixtures.tiny_bundle import write_tiny_bundle
from tests.fixtures.tiny_instances import write_things_bundle
from tests.run.backends.played_trial import WORDS, worker

ORIN = Target(Flavour("tensorrt", "10.3.0"), 87, Gpu("Orin", 87))
NAME = "trt-sm87-fp32-native"
Change = Callable[[bytes], bytes]


class Builder:
    """Copies graphs to the place of engines; ``changes`` plants errors, by the graph's file."""

    def __init__(self) -> None:
        self.changes: dict[str, Change] = {}

    def __call__(self, request: Request, folder: Path, progress: Progress) -> Engine:
        raw = request.graph.read_bytes()
        path = folder / f"{request.stem}.engine"
        path.write_bytes(self.changes.get(request.graph.name, bytes)(raw))
        with open(folder / "build.log", "a") as log:
            log.write("[I] built\n")
        shape = EngineShape(0, {}, 0, 0, 0, {})
        return Engine(path, "10.3.0", 0, LayerTable({}, {}, ()), False, shape)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A Jetson whose builder and runtime are doubles."""
    made = Builder()
    monkeypatch.setattr(build, "build_engine", made)
    monkeypatch.setattr(build, "check_machine", lambda target, ops: ((ORIN,), None))
    plays(monkeypatch, "runs")
    return made


def plays(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(build, "check_engines", partial(check_engines, worker=worker(mode)))


def altered(output: str, op: str, constant: np.ndarray | None = None) -> Change:
    """A graph whose output goes through one more node: ``op(constant, value)``."""

    def change(raw: bytes) -> bytes:
        model = onnx.load_from_string(raw)
        for node in model.graph.node:
            names = ["own" if name == output else name for name in node.output]
            node.output[:] = names
            node.input[:] = ["own" if name == output else name for name in node.input]
        inputs = ["own"]
        if constant is not None:
            model.graph.initializer.append(numpy_helper.from_array(constant, "planted"))
            inputs.insert(0, "planted")
        model.graph.node.append(helper.make_node(op, inputs, [output]))
        return bytes(model.SerializeToString())

    return change


def unchanged(bundle: Path, before: bytes) -> str:
    """Nothing of an engine is in the bundle but the log, which is returned."""
    assert (bundle / MANIFEST).read_bytes() == before
    assert [path.name for path in (bundle / "engines").iterdir()] == [f"{NAME}.failed.log"]
    Bundle.open(bundle)
    return (bundle / "engines" / f"{NAME}.failed.log").read_text()


def bright_picture(path: Path) -> Path:
    """Things in two quarters of the canvas, one of another size in the others."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32] = pixels[20:, 36:60] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_labels_that_agree(builder: Builder, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "b", batch=2)
    result = build_bundle(bundle, BuildOptions())
    record = Bundle.open(bundle).manifest.engines[NAME]
    assert record == result.built[0].record
    assert record.ran is not None
    assert (record.ran.pictures, record.ran.answers) == (2, "labels")
    assert (record.ran.compared, record.ran.agreement) == (2 * 32 * 48, 1.0)
    assert record.ran.mask_iou is None
    said = "ran on this GPU beside its graph in ONNX Runtime: 100.0000% of 3072 labels agree"
    assert f"checked     {said} (2 generated pictures)" in result.summary()
    assert "[I] built" in (bundle / "engines" / NAME / "build.log").read_text()


def test_an_engine_for_another_gpu_is_not_run(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    away = Target(Flavour("tensorrt_rtx", "1.7.1"), 86)
    monkeypatch.setattr(build, "check_machine", lambda target, ops: ((away,), None))
    monkeypatch.setattr(build, "check_engines", pytest.fail)
    result = build_bundle(bundle, BuildOptions(target="rtx:86"))
    assert result.built[0].record.ran is None
    assert "built, not run" in result.summary()
    written = json.loads((bundle / MANIFEST).read_text())["engines"]["rtx-sm86-fp32-native"]
    assert "ran" not in written
    with pytest.raises(UsageError, match="not here are not run"):
        build_bundle(bundle, BuildOptions(target="rtx:86", verify_on=tmp_path))


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("refuses", f"cannot be deserialised.*{WORDS}"),
        ("fails", f"TensorRT failed while running.*{WORDS}"),
        ("dies", "ended the process .SIGABRT."),
    ],
)
def test_an_engine_that_the_gpu_refuses(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, words: str
) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    before = (bundle / MANIFEST).read_bytes()
    plays(monkeypatch, mode)
    with pytest.raises(DeployError, match=f"model.engine: built, but this GPU does not.*{words}"):
        build_bundle(bundle, BuildOptions())
    log = unchanged(bundle, before)
    assert "[I] built" in log
    assert mode == "dies" or WORDS in log
    plays(monkeypatch, "runs")  # the next build that succeeds takes the log away
    build_bundle(bundle, BuildOptions())
    assert [path.name for path in (bundle / "engines").iterdir()] == [NAME]


def test_an_earlier_engine_stays_where_the_next_is_refused(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    build_bundle(bundle, BuildOptions())
    before = (bundle / MANIFEST).read_bytes()
    plays(monkeypatch, "refuses")
    with pytest.raises(DeployError):
        build_bundle(bundle, BuildOptions())
    assert (bundle / MANIFEST).read_bytes() == before
    assert Bundle.open(bundle).file(f"engines/{NAME}/model.engine").is_file()


def test_labels_that_differ(builder: Builder, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    before = (bundle / MANIFEST).read_bytes()
    builder.changes["model.onnx"] = altered("labels", "BitwiseNot")
    words = r"share of equal labels is 0, and the limit is >= 0\.99"
    with pytest.raises(ParityError, match=words) as caught:
        build_bundle(bundle, BuildOptions())
    assert caught.value.exit_code == 3
    assert "--verify-images" in caught.value.hint
    unchanged(bundle, before)


def test_values_that_are_not_finite(builder: Builder, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "b", outputs=("labels", "logits"))
    nan = np.array(np.nan, np.float32)
    builder.changes["model.onnx"] = altered("logits", "Add", nan)
    with pytest.raises(ParityError, match=f"values that are not finite is {3 * 32 * 64}"):
        build_bundle(bundle, BuildOptions())


@pytest.mark.parametrize("layout", ["single", "split"])
def test_detections_that_agree(builder: Builder, tmp_path: Path, layout: str) -> None:
    bundle = write_things_bundle(tmp_path / "b", layout=layout)
    picture = bright_picture(tmp_path / "a.png")
    result = build_bundle(bundle, BuildOptions(verify_on=picture))
    ran = Bundle.open(bundle).manifest.engines[NAME].ran
    assert ran is not None
    assert (ran.answers, ran.compared, ran.agreement, ran.mask_iou) == ("detections", 2, 1.0, 1.0)
    assert "100.0000% of 2 detections agree, masks' IoU 1.0000 (1 picture)" in result.summary()


@pytest.mark.parametrize("layout", ["single", "split"])
@pytest.mark.parametrize(
    ("file", "output", "op", "constant", "words"),
    [
        ("detector.onnx", "scores", "Mul", 0.9, "share of detections that both have is 0"),
        ("detector.onnx", "boxes", "Mul", 0.99, "share of detections that both have is 0"),
        ("detector.onnx", "boxes", "Mul", np.nan, "boxes that are not finite"),
        ("masks.onnx", "masks", "Sub", 1.0, "mean IoU is 0"),
        ("masks.onnx", "masks", "Add", 1.0, "probabilities outside"),
    ],
)
def test_detections_that_differ(
    builder: Builder,
    tmp_path: Path,
    layout: str,
    file: str,
    output: str,
    op: str,
    constant: float,
    words: str,
) -> None:
    bundle = write_things_bundle(tmp_path / "b", layout=layout)
    before = (bundle / MANIFEST).read_bytes()
    wrong = altered(output, op, np.array(constant, np.float32))
    builder.changes[file if layout == "split" else "model.onnx"] = wrong
    options = BuildOptions(verify_on=bright_picture(tmp_path / "a.png"))
    with pytest.raises(ParityError, match=words):
        build_bundle(bundle, options)
    unchanged(bundle, before)


def test_where_nothing_is_detected_the_mask_engine_runs_all_the_same(
    builder: Builder, tmp_path: Path
) -> None:
    black = tmp_path / "black.png"
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(black)
    options = BuildOptions(verify_on=black)
    split = write_things_bundle(tmp_path / "split", layout="split")
    result = build_bundle(split, options)
    assert "the masks of 4 given boxes were compared" in result.summary()
    ran = result.built[0].record.ran
    assert ran is not None and ran.compared == 0
    single = write_things_bundle(tmp_path / "single")
    assert "no mask was compared" in build_bundle(single, options).summary()
    before = (split / MANIFEST).read_bytes()
    builder.changes["masks.onnx"] = altered("masks", "Sub", np.array(1, np.float32))
    with pytest.raises(ParityError, match="IoU is 0"):
        build_bundle(split, options)
    assert (split / MANIFEST).read_bytes() == before


def test_a_picture_that_cannot_be_read_is_found_before_the_build(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    monkeypatch.setattr(build, "build_engine", pytest.fail)
    with pytest.raises(DeployError, match=r"none\.png"):
        build_bundle(bundle, BuildOptions(verify_on=tmp_path / "none.png"))
    assert not (bundle / "engines").exists()
