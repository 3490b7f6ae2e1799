"""INT8 graphs of a bundle: ranges of every origin, options that contradict each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from pointrend_deploy.bundle.folder import RANGES
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.progress import Silent
from pointrend_deploy.quantize.placement import ASKED, observable
from pointrend_deploy.quantize.ranges import (
    CalibrationPicture,
    Histogram,
    Ranges,
    TensorRange,
    encode,
)
from pointrend_deploy.quantize.tensorrt_cache import write_cache
from pointrend_deploy.verbs.quantize.graphs import QuantizedGraphs
from pointrend_deploy.verbs.quantize.int8 import int8_graphs
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from tests.fixtures.small_graphs import instance_heads, residual_pyramid

MODEL = "model.onnx"
COARSE = "sem_seg_head.coarse_sem_seg_head"


@dataclass
class FakeBundle:
    """What int8_graphs asks of a bundle."""

    path: Path
    graphs: dict[str, onnx.ModelProto]
    ranges: bytes | None = None
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, graph in self.graphs.items():
            self.files[name] = hashlib.sha256(graph.SerializeToString()).hexdigest()
        if self.ranges is not None:
            (self.path / RANGES).write_bytes(self.ranges)
            self.files[RANGES] = hashlib.sha256(self.ranges).hexdigest()

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(files=self.files)

    def file(self, name: str) -> Path:
        return self.path / name

    def make(self, **options: Any) -> QuantizedGraphs:
        chosen = QuantizeOptions(precision="int8", **options)
        chosen.check()
        return int8_graphs(self, chosen, self.graphs, Silent())  # type: ignore[arg-type]


def ranges_of(models: dict[str, onnx.ModelProto], without: str = "", **changes: Any) -> bytes:
    """Ranges with a heavy tail: nearly all values below 2, one at 8."""
    counts = np.zeros(2048, np.int64)
    counts[:512] = 1000
    counts[-1] = 1
    one = TensorRange(8.0, Histogram(8.0, tuple(counts.tolist())))
    files = {n: hashlib.sha256(g.SerializeToString()).hexdigest() for n, g in models.items()}
    fields: dict[str, Any] = {
        "recipe": "small",
        "graphs": files,
        "method": "percentile",
        "percentile": 99.99,
        "pictures": (CalibrationPicture("a.png", "0" * 64), CalibrationPicture("b.png", "1" * 64)),
        "skipped": (),
        "tensors": {
            name: {value: one for value in observable(graph) if value != without}
            for name, graph in models.items()
        },
    }
    made: bytes = encode(Ranges(**{**fields, **changes}))
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> FakeBundle:
    graphs = {MODEL: residual_pyramid()}
    return FakeBundle(tmp_path, graphs, ranges_of(graphs))


def scale(graph: onnx.ModelProto, value: str) -> float:
    found = next(t for t in graph.graph.initializer if t.name == f"{value}.scale")
    return float(onnx.numpy_helper.to_array(found))


def test_the_record_and_the_lines_say_what_was_done(bundle: FakeBundle) -> None:
    made = bundle.make()
    record = made.record
    assert len(record.int8) == 11
    assert record.int8_flops == 1
    assert (record.method, record.pictures, record.fallback) == ("percentile", 2, "fp16")
    assert record.ranges_sha256 == bundle.files[RANGES]
    assert record.sources == {MODEL: bundle.files[MODEL]}
    assert record.fp32 == ()
    assert made.more == (
        "INT8        11 layers, 100.0% of the FLOPs meant for it",
        "FP16        3 layers: 2 point head; 1 predictor",
        "ranges      percentile 99.99 from ranges.json, 2 pictures",
    )
    assert made.graphs[MODEL].opset_import[0].version == 19


def test_another_method_gives_other_scales(bundle: FakeBundle) -> None:
    value = "backbone.add.out"
    first = scale(bundle.make().graphs[MODEL], value)
    most = bundle.make(method="max")
    assert most.record.method == "max"
    assert scale(most.graphs[MODEL], value) == pytest.approx(8 / 127, rel=1e-3)
    assert first < 0.3 * 8 / 127
    whole = bundle.make(percentile=100.0)
    assert scale(whole.graphs[MODEL], value) > 3 * first


def test_everything_else_in_fp32_on_request(bundle: FakeBundle) -> None:
    made = bundle.make(fallback="fp32")
    kinds = {t.data_type for t in made.graphs[MODEL].graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds
    assert onnx.TensorProto.INT8 in kinds
    assert made.record.fallback == "fp32"


def test_layers_are_left_out_and_kept_in_fp32(bundle: FakeBundle) -> None:
    kept = "backbone.fpn_output2"
    made = bundle.make(keep_fp16=("backbone.bottom_up.res2",), keep_fp32=(kept,))
    assert made.record.left_out["backbone.bottom_up.res2.0.conv1"] == ASKED
    assert made.record.fp32 == (kept,)
    assert made.record.int8_flops is not None
    assert 0 < made.record.int8_flops < 1
    weight = next(t for t in made.graphs[MODEL].graph.initializer if t.name == f"{kept}.weight")
    assert weight.data_type == onnx.TensorProto.FLOAT
    line = next(line for line in made.more if line.startswith("FP16"))
    asked = sum(r == ASKED for n, r in made.record.left_out.items() if n != kept)
    assert f" {len(made.record.left_out) - 1} layers: {asked} asked for;" in line  # no FP32 one


@pytest.mark.parametrize("option", ["keep_fp16", "keep_fp32"])
def test_graphs_without_a_layer_in_int8_are_refused(bundle: FakeBundle, option: str) -> None:
    with pytest.raises(UsageError, match=r"no layer of model\.onnx is left in INT8"):
        bundle.make(**{option: ("*",)})


def test_one_graph_of_two_may_have_no_layer_in_int8(tmp_path: Path) -> None:
    graphs = {"detector.onnx": residual_pyramid(), "masks.onnx": instance_heads()}
    made = FakeBundle(tmp_path, graphs, ranges_of(graphs)).make(keep_fp16=("roi_heads",))
    assert made.record.int8
    kinds = {node.op_type for node in made.graphs["masks.onnx"].graph.node}
    assert "QuantizeLinear" not in kinds


def test_int8_products_have_fp32_scales_whatever_the_fallback(tmp_path: Path) -> None:
    graphs = {MODEL: instance_heads()}
    made = FakeBundle(tmp_path, graphs, ranges_of(graphs)).make()
    kinds = {t.name: t.data_type for t in made.graphs[MODEL].graph.initializer}
    assert kinds["roi_heads.box_head.fc1.weight.scale"] == onnx.TensorProto.FLOAT
    conv = "roi_heads.mask_head.coarse_head.reduce_spatial_dim_conv.weight.scale"
    assert kinds[conv] == onnx.TensorProto.FLOAT16
    assert made.record.fp32 == ()  # nobody asked for it, and the products are INT8


def test_more_in_int8_on_request(bundle: FakeBundle) -> None:
    made = bundle.make(also_int8=("*point_head*", f"{COARSE}.predictor"))
    assert "sem_seg_head.point_head.step0" in made.record.int8
    assert {"sem_seg_head.point_head", f"{COARSE}.predictor"} <= set(made.record.int8)
    assert made.record.left_out == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"keep_fp16": ("backbone",), "also_int8": ("backbone.fpn_output2",)},
            "and by --also-int8",
        ),
        (
            {"keep_fp16": ("sem_seg_head.point_head",), "keep_fp32": ("sem_seg_head.point_head",)},
            "and by --keep-fp32",
        ),
        ({"keep_fp16": ("backbone",), "fallback": "fp32"}, "--fallback fp32 for none"),
        ({"also_int8": ("head.point",)}, "--also-int8 'head.point' matches no layer"),
        ({"method": "max", "percentile": 99.0}, "--percentile is for --method percentile"),
    ],
)
def test_options_that_contradict_each_other(
    bundle: FakeBundle, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        bundle.make(**options)


def test_a_layer_that_cannot_be_int8_is_not_asked_for_in_vain(tmp_path: Path) -> None:
    graphs = {MODEL: instance_heads()}
    bundle = FakeBundle(tmp_path, graphs, ranges_of(graphs))
    name = "roi_heads.mask_head.point_head.matmul_2"
    with pytest.raises(UsageError, match=f"{name} cannot be INT8: its weights are gathered"):
        bundle.make(also_int8=(name,))


def test_a_percentile_of_another_method_is_refused(tmp_path: Path) -> None:
    graphs = {MODEL: residual_pyramid()}
    bundle = FakeBundle(tmp_path, graphs, ranges_of(graphs, method="entropy"))
    with pytest.raises(UsageError, match="was calibrated with entropy"):
        bundle.make(percentile=99.9)
    assert bundle.make(method="percentile", percentile=99.9).record.method == "percentile"


def test_a_tensorrt_cache_is_known_by_its_content(bundle: FakeBundle, tmp_path: Path) -> None:
    cache = tmp_path / "from_before"
    write_cache(cache, dict.fromkeys(observable(bundle.graphs[MODEL]), 5.0))
    made = bundle.make(ranges=cache)
    assert (made.record.method, made.record.pictures) == ("cache", None)
    assert scale(made.graphs[MODEL], "backbone.add.out") == pytest.approx(5 / 127, rel=1e-3)
    assert "does not say which graph" in made.notes[0]
    for options in ({"method": "max"}, {"percentile": 99.0}):
        with pytest.raises(UsageError, match="TensorRT cache has one scale per value"):
            bundle.make(ranges=cache, **options)


def test_missing_foreign_and_incomplete_ranges_are_told_apart(tmp_path: Path) -> None:
    graphs = {MODEL: residual_pyramid()}
    with pytest.raises(DeployError, match="has no ranges to quantise with") as error:
        FakeBundle(tmp_path, graphs).make()
    assert error.value.hint == f"pointrend-deploy calibrate {tmp_path} --images FOLDER"
    with pytest.raises(DeployError, match="cannot read"):
        FakeBundle(tmp_path, graphs).make(ranges=tmp_path / "none.json")
    (tmp_path / "other.txt").write_text("TRT")
    with pytest.raises(DeployError, match="neither a file of ranges nor a TensorRT"):
        FakeBundle(tmp_path, graphs).make(ranges=tmp_path / "other.txt")
    foreign = ranges_of(graphs, graphs={MODEL: "f" * 64})
    with pytest.raises(DeployError, match=r"are of another model\.onnx"):
        FakeBundle(tmp_path, graphs, foreign).make()
    value = "backbone.add.out"
    part = FakeBundle(tmp_path, graphs, ranges_of(graphs, without=value))
    with pytest.raises(DeployError, match=r"(?m)for 1 of the 10 values .*: backbone\.add\.out$"):
        part.make()
    assert part.make(keep_fp16=("backbone.fpn_output2",)).record.int8  # not needed for these
