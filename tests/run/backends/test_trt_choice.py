"""``--runner auto``: an engine where one fits, ONNX Runtime with a reason where none does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import onnx
import pytest

from pointrend_deploy.bundle.folder import PARITY, Bundle
from pointrend_deploy.bundle.manifest import MANIFEST, encode_manifest
from pointrend_deploy.engine.targets import Gpu
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.backends import trt, trt_choice
from pointrend_deploy.run.backends.trt import Host, TrtRunner
from pointrend_deploy.run.backends.trt_choice import preferred
from pointrend_deploy.run.open import open_runner
from tests.engine.recorded import FULL
from tests.fixtures.tiny_bundle import write_tiny_bundle
from tests.fixtures.tiny_instances import write_things_bundle
from tests.run.backends.fake_cuda import FakeCuda
from tests.run.backends.played import set_up, with_engines

FP32, FP16, INT8 = (f"trt-sm87-{precision}-native" for precision in ("fp32", "fp16", "int8"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Jetson with TensorRT, cuda-python and nothing broken."""
    monkeypatch.setattr(trt, "check_import", lambda module: None)
    return set_up(FULL[0], monkeypatch, FakeCuda())


def bundle_with(path: Path, version: str, *names: str, task: str = "semantic") -> Bundle:
    """A bundle with graphs of the three precisions, all the same, and engines of these names."""
    write = write_tiny_bundle if task == "semantic" else write_things_bundle
    bundle = Bundle.open(write(path))
    graphs = dict.fromkeys(("fp32", "fp16", "int8"), "model.onnx")
    manifest = msgspec.structs.replace(bundle.manifest, graphs=graphs)
    (path / MANIFEST).write_bytes(encode_manifest(manifest))
    bundle = Bundle.open(path)
    for name in names:
        bundle = with_engines(bundle, version, name, precision=name.split("-")[2])
    return bundle


def with_parity(bundle: Bundle, truth: bool = True, **passed: bool | None) -> Bundle:
    """A record of `compare --precision`; None for a precision whose accuracy has no gate."""
    graph = bundle.manifest.files["model.onnx"]
    columns = [
        {
            "precision": precision,
            "graphs": {"model.onnx": graph},
            "gates": [] if good is None else [{"passed": good, "name": "drop of mIoU"}],
            "cautions": [{"passed": True}],
        }
        for precision, good in passed.items()
    ]
    record = {"schema": 1, "runs": {}, "precisions": {"truth": truth, "columns": columns}}
    return bundle.update({PARITY: msgspec.json.encode(record)})


def opened(bundle: Bundle, **options: str) -> tuple[str, str | None, str, list[str]]:
    """Runner, engine and precision that auto takes, and what it says."""
    said: list[str] = []
    runner = open_runner(bundle, tell=said.append, **options)  # type: ignore[arg-type]
    return runner.name, getattr(runner, "engine", None), runner.precision, said


def test_an_engine_that_fits(
    machine: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, FP32)
    line = f"auto: runner tensorrt, engine {FP32}, precision fp32"
    assert opened(bundle) == ("tensorrt", FP32, "fp32", [line])
    open_runner(bundle.path)
    assert capsys.readouterr().err == f"{line}\n"


def test_without_engines_nothing_is_said_and_nothing_imported(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    assert opened(Bundle.open(bundle)) == ("onnx", None, "fp32", [])
    code = (
        "import sys\nfrom pointrend_deploy.run.open import open_runner\n"
        f"open_runner({str(bundle)!r})\n"
        "names = ('tensorrt', 'tensorrt_rtx', 'pointrend_deploy.run.backends.trt')\n"
        "print(*(name for name in names if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ({}, "fp32"),
        ({"fp32": True, "fp16": True}, "fp16"),
        ({"fp32": True, "fp16": True, "int8": True}, "int8"),
        ({"fp32": True, "fp16": True, "int8": False}, "fp16"),
        ({"fp32": True, "fp16": False, "int8": None}, "fp32"),
    ],
)
def test_the_lowest_precision_that_passed(
    machine: SimpleNamespace, tmp_path: Path, passed: dict[str, bool | None], expected: str
) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, INT8, FP16, FP32)
    bundle = with_parity(bundle, **passed)
    assert opened(bundle)[2] == expected


def test_a_record_that_does_not_count(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, FP16, FP32)
    parity = with_parity(bundle, fp16=True)
    assert opened(parity)[2] == "fp16"
    raw = (parity.path / PARITY).read_bytes()
    other = raw.replace(bundle.manifest.files["model.onnx"].encode(), b"0" * 64)
    assert opened(parity.update({PARITY: other}))[2] == "fp32"  # of other graphs
    assert opened(parity.update({PARITY: b"{"}))[2] == "fp32"
    things = bundle_with(tmp_path / "t", machine.version, FP16, FP32, task="instance")
    assert opened(with_parity(things, fp16=True))[2] == "fp16"
    assert opened(with_parity(things, truth=False, fp16=True))[2] == "fp32"


def test_the_only_one_is_taken_and_named(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, INT8)
    assert opened(bundle)[1:3] == (INT8, "int8")


def test_of_one_precision_the_one_with_plugins(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, INT8)
    name = "trt-sm87-int8-plugin"
    bundle = with_engines(bundle, machine.version, name, precision="int8", ops="plugin")
    assert preferred(bundle, Host("tensorrt", machine.version, 87, None)) == name


def test_engines_of_an_earlier_graph(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, FP32)
    model = onnx.load(bundle.path / "model.onnx")
    model.doc_string = "exported again"
    changed = bundle.update({"model.onnx": model.SerializeToString()})
    runner, _, _, (line,) = opened(changed)
    assert runner == "onnx" and "was built from another model.onnx than the bundle's" in line
    assert opened(with_engines(changed, machine.version, INT8, precision="int8"))[1] == INT8


def test_a_precision_that_was_asked_for(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, FP32, FP16)
    assert opened(bundle, precision="fp16")[:3] == ("tensorrt", FP16, "fp16")
    line = "auto: runner onnx, precision int8; no engine, as the bundle has no int8 engine"
    assert opened(bundle, precision="int8") == ("onnx", None, "int8", [line])


def test_an_engine_that_was_named(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, FP32, FP16)
    assert opened(bundle, engine=FP16) == ("tensorrt", FP16, "fp16", [])
    with pytest.raises(DeployError, match="no engine trt-sm87-int8"):
        open_runner(bundle, engine=INT8)
    with pytest.raises(DeployError, match="runs no engine"):
        open_runner(bundle, engine=FP16, weights="weights.safetensors")


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (None, "is for a GPU of compute capability 8.7; there is no GPU here"),
        (Gpu("Thor", 110), "is for a GPU of compute capability 8.7; this one is of 11.0"),
    ],
)
def test_another_gpu(
    machine: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpu: Gpu | None,
    words: str,
) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, FP32)
    monkeypatch.setattr(trt_choice, "first_gpu", lambda: gpu)
    monkeypatch.setattr(trt, "check_import", pytest.fail)
    runner, _, precision, (line,) = opened(bundle)
    assert (runner, precision) == ("onnx", "fp32")
    assert line == f"auto: runner onnx, precision fp32; no engine, as {FP32} {words}"


def test_another_version(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", "9.0.0", FP32)
    runner, _, _, (line,) = opened(bundle)
    assert runner == "onnx"
    assert f"{FP32} was built by TensorRT 9.0.0, and this is TensorRT {machine.version}" in line
    assert not [call for call, _ in machine.trt.calls if "deserialize" in call]


def test_what_is_missing_here(
    machine: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, FP32)
    machine.played.answers["Runtime.deserialize_cuda_engine"] = None
    assert "model.engine cannot be deserialised" in opened(bundle)[3][0]

    def missing() -> None:
        raise DeployError("run --runner tensorrt needs cuda-python, which is not installed")

    monkeypatch.setattr(trt, "cuda_runtime", missing)
    assert "needs cuda-python" in opened(bundle)[3][0]
    monkeypatch.setattr(trt, "installed", lambda: ())
    runner, _, _, (line,) = opened(bundle)
    assert runner == "onnx" and "neither TensorRT nor TensorRT-RTX is installed" in line
    with pytest.raises(DeployError, match="neither TensorRT"):
        open_runner(bundle, "tensorrt")


def test_the_tensorrt_runner_still_asks_which(machine: SimpleNamespace, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", machine.version, FP32, FP16)
    with pytest.raises(DeployError, match="several engines fit"):
        TrtRunner(bundle)
