"""Every call that full TensorRT gets, against what its own bindings document. Nothing is built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pointrend_deploy.engine import flavour, worker
from pointrend_deploy.engine.job import Built, Job, Message, Plugin, Profile
from pointrend_deploy.errors import DeployError
from tests.engine.recorded import FULL, SIGNATURES, recorded
from tests.engine.rtx import rtx_needed

INSPECTED = '{"Layers": [{"Name": "conv", "LayerType": "CaskConvolution"}]}'
ALL = (*FULL, "tensorrt_rtx-1.7.1.116")


def answers(**more: Any) -> dict[str, Any]:
    """A network of one plugin layer, one sampler, one TopK of 200 and one ArgMax."""
    kinds = ("PLUGIN_V3", "GRID_SAMPLE", "TOPK", "TOPK")
    names = ("sample", "grid", "top", "argmax")
    shapes = {"top": (1, 200), "argmax": (1, 1)}

    def layer(network: Any, index: int) -> Any:
        made = object.__new__(holder["trt"].ILayer)
        made.__dict__["row"] = index
        return made

    def tensor(owner: Any, index: int) -> Any:
        made = object.__new__(holder["trt"].ITensor)
        made.__dict__["of"] = names[owner.row]
        return made

    def read(owner: Any, index: int) -> Any:
        made = object.__new__(holder["trt"].ITensor)
        made.__dict__["of"] = f"{names[owner.row]}.in{index}"
        return made

    def creators(registry: Any) -> list[Any]:
        kind = holder["trt"].IPluginCreatorV3One
        made = object.__new__(kind)
        made.__dict__.update(
            name="PointRendSample", plugin_version="1", plugin_namespace="pointrend"
        )
        return [made]

    holder: dict[str, Any] = {}
    table = {
        "INetworkDefinition.num_layers": len(kinds),
        "INetworkDefinition.get_layer": layer,
        "ILayer.type": lambda self: holder["trt"].LayerType[kinds[self.row]],
        "ILayer.name": lambda self: names[self.row],
        "ILayer.metadata": lambda self: f"[ONNX Layer: {names[self.row]}]",
        "ILayer.get_output": tensor,
        "ILayer.get_input": lambda self, index: read(self, index),
        "ITensor.shape": lambda self: shapes[self.of],
        "ITensor.dtype": lambda self: holder["trt"].DataType.FLOAT,
        "ITopKLayer.axes": 2,
        "IGridSampleLayer.interpolation_mode": lambda self: holder["trt"].InterpolationMode.LINEAR,
        "IPluginRegistry.all_creators": creators,
        "OnnxParser.num_errors": 0,
        "IBuilderConfig.create_timing_cache": lambda self, serialized_timing_cache: object.__new__(
            holder["trt"].ITimingCache
        ),
        "Builder.build_serialized_network": lambda self, **_: holder["trt"].IHostMemory(b"engine"),
        "ITimingCache.serialize": lambda self: holder["trt"].IHostMemory(b"timings"),
        "EngineInspector.get_engine_information": INSPECTED,
        "holder": holder,
    }
    return {**table, **more}


def made(name: str, **more: Any) -> tuple[SimpleNamespace, Job]:
    table = answers(**more)
    trt = recorded(name, table)
    table["holder"]["trt"] = trt
    return trt, Job(
        module="tensorrt_rtx" if "rtx" in name else "tensorrt",
        capability=86 if "rtx" in name else None,
        graph="model.onnx",
        engine="model.engine",
        log="build.log",
        layers="layers",
        timing_cache="timing.cache",
        workspace_mib=512,
        library="libpointrend_plugins.so",
        plugins=(Plugin("PointRendSample", "1", "pointrend"),),
        custom=("sample",),
        grid_samples=1,
        topk={"top": 200},
        profiles=(Profile("boxes", (1, 4), (100, 4), (100, 4)),),
    )


def built(trt: SimpleNamespace, job: Job) -> list[Message]:
    told: list[Message] = []
    worker.build(trt, job, told.append)
    return told


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_every_call_fits(name: str) -> None:
    trt, job = made(name)
    assert built(trt, job) == [Built(trt.__version__, 1)]
    assert Path("model.engine").read_bytes() == b"engine"
    calls = dict(trt.calls)
    flags = calls["Builder.create_network"]["flags"]
    assert flags == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert calls["IBuilderConfig.set_memory_pool_limit"]["pool_size"] == 512 << 20
    assert calls["IBuilderConfig.clear_flag"]["flag"] == trt.BuilderFlag.TF32
    assert calls["IPluginRegistry.load_library"] == {"plugin_path": job.library}
    order = [call[0] for call in trt.calls]
    assert order.index("IPluginRegistry.load_library") < order.index("OnnxParser.parse_from_file")
    last = order.index("Builder.build_serialized_network")
    assert order.index("IBuilderConfig.add_optimization_profile") < last


@pytest.mark.parametrize("name", FULL)
def test_full_tensorrt_keeps_timings_and_tells_its_layers(name: str) -> None:
    trt, job = made(name)
    built(trt, job)
    assert Path("timing.cache").read_bytes() == b"timings"
    assert json.loads(Path("layers").read_text()) == json.loads(INSPECTED)
    trt, job = made(name)
    assert built(trt, job) == [Built(trt.__version__, 1, True)]
    given = dict(trt.calls)["IBuilderConfig.create_timing_cache"]
    assert given == {"serialized_timing_cache": b"timings"}
    trt, job = made(name, **{"IBuilderConfig.set_timing_cache": False})
    assert built(trt, job) == [Built(trt.__version__, 1, False)]


def test_rtx_aims_at_a_gpu_that_is_not_there() -> None:
    trt, job = made("tensorrt_rtx-1.7.1.116")
    built(trt, job)
    assert ("IBuilderConfig.num_compute_capabilities =", {"value": 1}) in trt.calls
    aimed = dict(trt.calls)["IBuilderConfig.set_compute_capability"]
    assert list(aimed.values()) == [trt.ComputeCapability.SM86, 0]
    assert not Path("timing.cache").exists()
    trt, job = made("tensorrt_rtx-1.7.1.116")
    with pytest.raises(DeployError, match="does not build for SM87"):
        flavour.configure(trt, trt.Builder(log(trt)).create_builder_config(), 1024, 87)


@pytest.mark.parametrize("name", FULL)
def test_full_tensorrt_builds_for_its_own_gpu_only(name: str) -> None:
    trt, _ = made(name)
    with pytest.raises(DeployError, match="the GPU it runs on only"):
        flavour.configure(trt, trt.Builder(log(trt)).create_builder_config(), 1024, 86)


def log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

    return Log()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"IPluginRegistry.all_creators": []}, "no PointRendSample"),
        ({"Builder.build_serialized_network": lambda self, **_: None}, "built no engine"),
        ({"IBuilderConfig.add_optimization_profile": -1}, "does not take the bounds"),
        ({"INetworkDefinition.num_layers": 0}, "0 layers of the parsed network are plugins"),
        ({"ILayer.metadata": "", "ILayer.name": "other"}, "sample did not become a plugin"),
        ({"ITensor.shape": (1, 100)}, "top selects 100 where the graph selects 200"),
    ],
)
@pytest.mark.parametrize("name", FULL)
def test_what_a_builder_may_do_wrong(name: str, answer: dict[str, Any], words: str) -> None:
    trt, job = made(name, **answer)
    with pytest.raises(DeployError, match=words):
        built(trt, job)


@pytest.mark.parametrize("name", FULL)
def test_a_sampler_that_became_nearest(name: str) -> None:
    trt, job = made(name)
    mode = trt.InterpolationMode.NEAREST
    trt, job = made(name, **{"IGridSampleLayer.interpolation_mode": mode})
    with pytest.raises(DeployError, match="samples with NEAREST"):
        built(trt, job)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", ["grid.in0", "grid.in1", "top.in0"])
def test_coordinates_and_scores_that_are_not_fp32(name: str, value: str) -> None:
    def dtype(tensor: Any) -> Any:
        return trt.DataType.HALF if tensor.of == value else trt.DataType.FLOAT

    trt, job = made(name, **{"ITensor.dtype": dtype})
    with pytest.raises(DeployError, match=f"{value.split('.')[0]} .* by HALF values"):
        built(trt, job)


@pytest.mark.parametrize("name", FULL)
def test_an_argmax_may_read_what_it_likes(name: str) -> None:
    def dtype(tensor: Any) -> Any:
        return trt.DataType.HALF if tensor.of == "argmax.in0" else trt.DataType.FLOAT

    trt, job = made(name, **{"ITensor.dtype": dtype})
    assert built(trt, job) == [Built(trt.__version__, 1)]


@pytest.mark.parametrize("name", FULL)
def test_a_dynamic_engine_is_inspected_at_its_largest_shapes(name: str) -> None:
    trt, job = made(name)
    built(trt, job)
    calls = dict(trt.calls)
    given = calls["IExecutionContext.set_input_shape"]
    assert given == {"name": "boxes", "shape": (100, 4)}
    order = [call[0] for call in trt.calls]
    last = order.index("EngineInspector.get_engine_information")
    assert order.index("EngineInspector.execution_context =") < last
    trt, job = made(name)
    built(trt, msgspec.structs.replace(job, profiles=()))
    assert "IExecutionContext.set_input_shape" not in dict(trt.calls)


@pytest.mark.parametrize("name", FULL)
def test_a_parser_that_refuses(name: str) -> None:
    trt, job = made(
        name,
        **{
            "OnnxParser.parse_from_file": False,
            "OnnxParser.num_errors": 1,
            "ParserError.node_name": lambda self: "step1.top",
            "ParserError.node_operator": lambda self: "TopK",
            "ParserError.desc": lambda self: "K exceeds\n the maximum",
        },
    )
    with pytest.raises(DeployError, match=r"node step1.top \(TopK\): K exceeds the maximum"):
        built(trt, job)


@pytest.mark.parametrize("name", FULL)
def test_the_double_refuses_what_the_bindings_would(name: str) -> None:
    trt, _ = made(name)
    builder = trt.Builder(log(trt))
    config = builder.create_builder_config()
    with pytest.raises(TypeError):
        builder.create_network("strongly typed")
    with pytest.raises(TypeError):
        builder.build_serialized_network(config)
    with pytest.raises(TypeError):
        config.clear_flag(trt.MemoryPoolType.WORKSPACE)
    with pytest.raises(TypeError):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size=1)
    with pytest.raises(AttributeError):
        config.set_compute_capability(86, 0)
    with pytest.raises(AttributeError, match="cannot be set"):
        trt.IHostMemory(b"").nbytes = 3


def test_eleven_has_no_precision_flags_left() -> None:
    assert "FP16" in recorded(FULL[0], {}).BuilderFlag.__members__
    assert "FP16" not in recorded(FULL[2], {}).BuilderFlag.__members__


def test_the_record_is_what_the_installed_bindings_say(tmp_path: Path) -> None:
    rtx_needed()
    program = Path(__file__).parent / "record_signatures.py"
    out = tmp_path / "record.json"
    subprocess.run(
        [sys.executable, program, "tensorrt_rtx", out], check=True, timeout=120, env={**os.environ}
    )
    kept = json.loads((SIGNATURES / "tensorrt_rtx-1.7.1.116.json").read_text())
    found = json.loads(out.read_text())
    if found["version"] != kept["version"]:
        pytest.skip(f"recorded for {kept['version']}, installed is {found['version']}")
    assert found == kept
