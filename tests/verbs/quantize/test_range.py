"""What leaves FP16's range is measured and refused, and the hint's patterns work when copied."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pointrend_deploy.bundle.folder import MODEL, Bundle
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.progress import Silent
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.layers import matched
from pointrend_deploy.quantize.placement import place
from pointrend_deploy.quantize.qdq import insert
from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle
from pointrend_deploy.verbs.quantize.advice import MOST_PATTERNS, advice, patterns_of
from pointrend_deploy.verbs.quantize.check import compared
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.quantize import quantize_bundle
from pointrend_deploy.verbs.quantize.reference import reference_of
from pointrend_deploy.verbs.quantize.semantic import LabelAgreement
from pointrend_deploy.verbs.quantize.span import ActivationRangeError, Leaving, outside_note
from tests.conftest import Exporter
from tests.fixtures import shared
from tests.repository import ROOT

FP16 = QuantizeOptions("fp16")
P2 = {
    "backbone.fpn_output2.weight": 1e6,
    "backbone.fpn_output2.bias": 1e6,
    "sem_seg_head.point_head.weight": 1e-6,
}
"""The same function in FP32, with p2 beyond FP16: of the native graph, whose point head has weights
for p2 alone."""


def planted(bundle: Path, out: Path, factors: Mapping[str, float]) -> Path:
    """A copy of a bundle whose FP32 weights are multiplied."""
    shutil.copytree(bundle, out)
    graph = onnx.load(out / MODEL)
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name, factor in factors.items():
        values = numpy_helper.to_array(tensors[name]) * np.float32(factor)
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    Bundle.open(out).update({MODEL: graph.SerializeToString()}, lambda manifest: manifest)
    return out


def refused(path: Path, options: QuantizeOptions) -> DeployError:
    """The error with which a bundle is refused; it is left as it was."""
    before = shared.content(path)
    with pytest.raises(DeployError) as error:
        quantize_bundle(path, options)
    assert shared.content(path) == before
    return error.value


def copied(error: DeployError) -> tuple[str, ...]:
    """The patterns of a hint, as a shell that it was copied into gives them on."""
    command = error.hint.partition(": ")[2].partition(" (")[0]
    words = shlex.split(command)
    assert words[::2] == ["--keep-fp32"] * (len(words) // 2)
    assert words
    return tuple(words[1::2])


def agreeing(path: Path, options: QuantizeOptions) -> float:
    found = quantize_bundle(path, options).measured.agreement
    assert isinstance(found, LabelAgreement)
    return found.least


@pytest.fixture
def large(exported: Exporter, tmp_path: Path) -> Path:
    return planted(exported(ops="native"), tmp_path / "large", P2)


def test_activations_beyond_fp16_are_refused_with_patterns_that_work(
    exported: Exporter, large: Path, tmp_path: Path
) -> None:
    error = refused(large, FP16)
    assert "elements of p2 are beyond FP16's range in the fp16 graph" in error.message
    assert "backbone.fpn_output2" in copied(error)
    least = agreeing(large, QuantizeOptions("fp16", keep_fp32=copied(error)))
    sound = agreeing(planted(exported(ops="native"), tmp_path / "sound", {}), FP16)
    assert least > sound - 0.02
    assert f"{least:.3%}" in error.hint, "the figure of the hint is of this very graph"


def test_a_layer_kept_in_fp32_whose_readers_clip_it_is_refused(large: Path) -> None:
    options = QuantizeOptions("fp16", keep_fp32=("backbone.fpn_output2",))
    error = refused(large, options)
    assert "elements of p2 are beyond" in error.message
    assert copied(error) == ("sem_seg_head.point_head",)
    kept = QuantizeOptions("fp16", keep_fp32=(*options.keep_fp32, *copied(error)))
    assert not any("nearly tied" in note for note in quantize_bundle(large, kept).notes)


def test_the_number_of_elements_is_right(large: Path) -> None:
    graph = {MODEL: onnx.load(large / MODEL)}
    made = {MODEL: to_half(graph[MODEL]).model}
    with pytest.raises(ActivationRangeError) as error:
        compared(reference_of(Bundle.open(large), graph, Silent()), made, "fp16", Silent())
    beyond, count = error.value.message.split()[0], error.value.message.split()[2]
    sizes = {v.name: v for v in graph[MODEL].graph.value_info}["p2"].type.tensor_type.shape.dim
    assert int(count.replace(",", "")) == 3 * np.prod([size.dim_value for size in sizes])
    assert 0 < int(beyond.replace(",", "")) < int(count.replace(",", ""))


def test_weights_beyond_fp16_are_refused_with_patterns_that_work(
    exported: Exporter, tmp_path: Path
) -> None:
    small = {name: 1 / factor for name, factor in P2.items()}
    path = planted(exported(ops="native"), tmp_path / "small", small)
    error = refused(path, FP16)
    assert "layer sem_seg_head.point_head: sem_seg_head.point_head.weight reaches" in error.message
    assert set(copied(error)) == {"sem_seg_head.point_head", "backbone.fpn_output2"}
    assert agreeing(path, QuantizeOptions("fp16", keep_fp32=copied(error))) > 0.9


def test_activations_too_small_for_fp16_are_named(exported: Exporter, tmp_path: Path) -> None:
    small = dict.fromkeys(P2, 5e-7) | {"sem_seg_head.point_head.weight": 1e5}
    path = planted(exported(ops="native"), tmp_path / "small", small)
    error = refused(path, FP16)
    assert "stage p2 of the fp16 graph has an SNR of" in error.message
    assert "no element of p2 reaches 6.1e-5" in error.message
    assert "backbone.fpn_output2" in copied(error)
    assert agreeing(path, QuantizeOptions("fp16", keep_fp32=copied(error))) > 0.9


def test_int8_graphs_are_held_to_the_range_of_what_is_fp16_in_them(
    exported: Exporter, pictures: Path, tmp_path: Path
) -> None:
    p4 = {
        "backbone.fpn_output4.weight": 1e6,
        "backbone.fpn_output4.bias": 1e6,
        "sem_seg_head.coarse_sem_seg_head.p4.0.weight": 1e-6,
    }
    path = planted(exported(ops="native"), tmp_path / "large", p4)
    calibrate_bundle(path, pictures, CalibrateOptions())
    error = refused(path, QuantizeOptions("int8"))
    assert "elements of p4 are beyond FP16's range in the int8 graph" in error.message
    result = quantize_bundle(path, QuantizeOptions("int8", keep_fp32=copied(error)))
    assert "backbone.fpn_output4" in result.record.fp32
    assert result.measured.span is not None
    assert result.measured.span.largest is not None
    assert result.measured.span.largest < 65504
    whole = quantize_bundle(path, QuantizeOptions("int8", fallback="fp32"))
    assert whole.measured.span is not None
    assert whole.measured.span.largest is None, "with an FP32 rest nothing is FP16"
    assert "FP16 range" not in whole.summary()


def test_ranges_that_do_not_fit_are_counted_before_they_are_blamed(exported: Exporter) -> None:
    bundle = Bundle.open(exported(ops="native"))
    fp32 = {MODEL: onnx.load(bundle.path / MODEL)}
    reference = reference_of(bundle, fp32, Silent())
    placement = place(fp32[MODEL])
    half = to_half(fp32[MODEL]).model

    def said(factor: float) -> str:
        amax = {name: factor * reference.largest[MODEL][name] for _, _, name in placement.edges}
        graph = insert(half, placement, amax, weights_from=fp32[MODEL])
        return outside_note(reference, {MODEL: graph})

    assert said(1.1) == ""
    assert "is beyond the range it was calibrated to: calibrate on pictures like" in said(0.1)


@pytest.mark.slow
def test_instance_models_too(tmp_path: Path) -> None:
    recipe, weights = (ROOT / "export/demo_instance.toml", ROOT / "demo/demo_instance.safetensors")
    box_head = {
        "roi_heads.box_head.fc1.weight": 2e4,
        "roi_heads.box_head.fc1.bias": 2e4,
        "roi_heads.box_head.fc2.weight": 1 / 2e4,
    }
    sound = shared.bundle(recipe, weights, size_hw=(256, 256))
    path = planted(sound, tmp_path / "large", box_head)
    error = refused(path, FP16)
    assert "elements of roi_heads.box_head.relu.out are beyond" in error.message
    result = quantize_bundle(path, QuantizeOptions("fp16", keep_fp32=copied(error)))
    assert result.measured.agreement.line() in error.hint
    assert {"roi_heads.box_head.fc1", "roi_heads.box_head.fc2"} <= set(result.record.fp32)


def test_where_no_choice_passes_that_is_said() -> None:
    value = Leaving("model.onnx", "p2", 1e6, ("backbone.fpn_output2",))
    problem = ActivationRangeError("too large", [value])
    tried = []

    def make(patterns: tuple[str, ...]) -> dict[str, onnx.ModelProto]:
        tried.append(patterns)
        return {}

    def fails(graphs: Mapping[str, onnx.ModelProto]) -> str:
        raise ParityError("noisy")

    def still(graphs: Mapping[str, onnx.ModelProto]) -> str:
        raise problem

    checks: tuple[Callable[[Mapping[str, onnx.ModelProto]], str], ...] = (fails, still)
    for check in checks:
        hint = advice(problem, make, check)
        assert hint.startswith("no layers were found that make it sound")
        assert "not enough: --keep-fp32 backbone.fpn_output2" in hint
    assert tried == [("backbone.fpn_output2",)] * 2, "the same layers are not tried twice"


def test_patterns_match_all_their_nodes_and_are_few() -> None:
    steps = [f"sem_seg_head.point_head.step{i}.relu_{k}" for i in range(4) for k in range(3)]
    nodes = ["backbone.fpn_output2", *steps]
    found = patterns_of(nodes)
    assert len(found) <= MOST_PATTERNS
    assert found[0] == "backbone.fpn_output2"
    assert matched(nodes, found, "") == set(nodes)
    assert patterns_of(["a.b", "a.b.c", "a.bc"]) == ("a.b", "a.bc")
