"""`quantize --sensitivity` on a small network with one block whose range is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

from pointrend_deploy.bundle.folder import MODEL, RANGES, Bundle, sha256_of
from pointrend_deploy.cli import app
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.onnx_session import open_session
from pointrend_deploy.pictures.canvas import batch_of, fit, from_rgb
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.progress import Silent
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.layers import matched
from pointrend_deploy.quantize.placement import observable, place
from pointrend_deploy.quantize.qdq import insert
from pointrend_deploy.quantize.ranges import CalibrationPicture, Ranges, encode
from pointrend_deploy.quantize.sensitivity import Measure
from pointrend_deploy.verbs.quantize import quantize
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.scale import MOST, Scale, pictures_for
from pointrend_deploy.verbs.quantize.sensitivity import Sensitivity, patterns, proposed
from tests.fixtures.small_graphs import Graph
from tests.fixtures.tiny_bundle import colour_picture, tiny_manifest, write_bundle
from tests.fixtures.tiny_instances import bright_picture, write_things_bundle

HW = (64, 96)
BAD = "backbone.bottom_up.res3.0"
BLOCKS = {
    "backbone.bottom_up.stem",
    "backbone.bottom_up.res2.0",
    BAD,
    "backbone.fpn",
    "sem_seg_head",
}


def network() -> onnx.ModelProto:
    """A semantic network of five blocks and a predictor, with the names of real ones."""
    g = Graph(image=(1, 3, *HW))
    body = "backbone.bottom_up"
    x = g.relu(g.conv(f"{body}.stem.conv1", "image", 12, 3, 3, 3, strides=[2, 2]))
    for block in ("res2.0", "res3.0"):
        y = g.relu(g.conv(f"{body}.{block}.conv1", x, 12, 12, 3, 3))
        y = g.conv(f"{body}.{block}.conv2", y, 12, 12, 1, 1)
        x = g.relu(g.node("Add", f"{body}.{block}.add", y, x))
    x = g.conv("backbone.fpn_lateral2", x, 12, 12, 1, 1)
    x = g.conv("backbone.fpn_output2", x, 12, 12, 3, 3)
    x = g.relu(g.conv("sem_seg_head.p2.0", x, 12, 12, 3, 3))
    x = g.conv("sem_seg_head.predictor", x, 3, 12, 1, 1)
    twice = g.constant("scales", np.array([1, 1, 2, 2], np.float32))
    x = g.node("Resize", "resize", x, "", twice, mode="nearest")
    model = g.model(x)
    model.graph.value_info.append(model.graph.output[0])
    model.graph.node.extend(
        [
            helper.make_node("ArgMax", [x], ["winner"], "argmax", axis=1, keepdims=0),
            helper.make_node("Cast", ["winner"], ["labels"], "labels", to=TensorProto.UINT8),
        ]
    )
    info = helper.make_tensor_value_info
    model.graph.value_info.append(info("winner", TensorProto.INT64, [1, *HW]))
    del model.graph.output[:]
    model.graph.output.append(info("labels", TensorProto.UINT8, [1, *HW]))
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        Image.fromarray(colour_picture(*HW, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    manifest = tiny_manifest(HW)
    graph = network().SerializeToString()
    ranges = Ranges(
        recipe="tiny",
        graphs={MODEL: hashlib.sha256(graph).hexdigest()},
        method="max",
        pictures=tuple(
            CalibrationPicture(name=path.name, sha256=sha256_of(path))
            for path in sorted(images.iterdir())
        ),
        tensors={MODEL: {}},
    )
    files = {MODEL: graph, RANGES: encode(ranges)}
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("bundle") / "b", manifest, files))


class Made:
    """Graphs of the network, with ranges as observed but for the bad block's, far too narrow."""

    def __init__(self, bundle: Bundle, images: Path, options: QuantizeOptions) -> None:
        self.bundle = bundle
        self.fp32 = {MODEL: onnx.load(bundle.path / MODEL)}
        self.options = options
        self.amax = _observed(self.fp32[MODEL], bundle, images)
        self.amax[f"{BAD}.conv1.relu.out"] /= 60
        self.ruined = False
        names = [node.name for node in self.fp32[MODEL].graph.node]
        self.keep = matched(names, options.keep_fp16 + options.keep_fp32, "")
        self.also = matched(names, options.also_int8, "")
        self.placements = {MODEL: place(self.fp32[MODEL], self.keep, self.also)}

    def __call__(self, keep: frozenset[str]) -> dict[str, onnx.ModelProto]:
        graph = self.fp32[MODEL]
        if self.ruined:
            graph = onnx.ModelProto.FromString(graph.SerializeToString())
            bias = next(t for t in graph.graph.initializer if t.name == "sem_seg_head.p2.0.bias")
            values = onnx.numpy_helper.to_array(bias) + np.float32(0.5)
            bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        placement = place(graph, self.keep | keep, self.also)
        if self.options.fallback == "fp32":
            return {MODEL: insert(graph, placement, self.amax)}
        return {MODEL: insert(to_half(graph).model, placement, self.amax, weights_from=graph)}


def _observed(graph: onnx.ModelProto, bundle: Bundle, images: Path) -> dict[str, float]:
    watched = onnx.ModelProto.FromString(graph.SerializeToString())
    names = [name for name in observable(graph) if name != "image"]
    known = {value.name: value for value in watched.graph.value_info}
    watched.graph.output.extend(known[name] for name in names)
    session = open_session(watched.SerializeToString())
    found = {"image": 4.0, **dict.fromkeys(names, 0.0)}
    for path in sorted(images.iterdir()):
        manifest = bundle.manifest
        batch = batch_of([fit(from_rgb(read_picture(path).rgb, manifest), manifest)], manifest)
        for name, value in zip(names, session.run(names, batch), strict=True):
            found[name] = max(found[name], float(np.abs(value).max()))
    return found


class Counting(Silent):
    """Remembers the steps: text, total, and how often each was told to go on."""

    def __init__(self) -> None:
        self.steps: list[list[Any]] = []

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        step: list[Any] = [text, total, 0]
        self.steps.append(step)

        def go_on() -> None:
            step[2] += 1

        yield go_on


Asking = Callable[..., tuple[Sensitivity, Made]]


@pytest.fixture
def ask(bundle: Bundle, images: Path) -> Asking:
    def asked(progress: Silent | None = None, ruined: bool = False, **options: Any) -> Any:
        options = {"images": images, **options}
        asked_for = QuantizeOptions(precision="int8", sensitivity=True, **options)
        made = Made(bundle, images, asked_for)
        made.ruined = ruined
        return proposed(made, progress or Silent()), made

    return asked


def table_of(found: Sensitivity) -> list[tuple[float, str]]:
    lines = [line.split() for line in found.lines]
    start = next(i for i, words in enumerate(lines) if words[:2] == ["points", "FLOPs"])
    rows = [words for words in lines[start + 1 :] if len(words) == 4 and words[1].endswith("%")]
    return [(float(words[0]), words[3]) for words in rows]


def test_the_planted_bad_block_is_the_worst_and_nothing_is_left_out_unasked(ask: Asking) -> None:
    progress = Counting()
    found, _ = ask(progress)
    rows = table_of(found)
    assert {name for _, name in rows} == BLOCKS
    assert rows[0][1] == BAD
    assert rows[0][0] > 5 * rows[1][0]
    assert [cost for cost, _ in rows] == sorted((cost for cost, _ in rows), reverse=True)
    assert found.leave_out == frozenset()
    assert not any("proposal" in line for line in found.lines)
    answers, each = progress.steps
    assert answers[1:] == [3, 3]
    assert each[1:] == [7 * 3, 7 * 3], "each of 5 blocks, FP16, INT8; three pictures"


def test_the_proposal_is_measured_as_a_whole_and_is_what_its_command_makes(
    ask: Asking, bundle: Bundle, images: Path
) -> None:
    progress = Counting()
    limit = table_of(ask()[0])[0][0] / 3
    found, made = ask(progress, max_drop=limit)
    assert found.leave_out == {f"{BAD}.conv1", f"{BAD}.conv2"}
    line = next(line for line in found.lines if line.startswith("proposal"))
    scale = Scale(bundle, sorted(images.iterdir()), made.fp32, lambda: None)
    lost = scale.points(made(found.leave_out), lambda: None)
    assert f"1 of 5 blocks in FP16: {lost:.3f} points lost" in line
    assert lost <= limit
    assert progress.steps[2][2] <= progress.steps[2][1]
    assert meant_by(found.lines[-1], made) == found.leave_out


def meant_by(command: str, made: Made) -> frozenset[str]:
    """Layers that a command leaves out of INT8 which the options alone leave in it."""
    options = options_of(command)
    graph = made.fp32[MODEL]
    names = [node.name for node in graph.graph.node]
    keep = matched(names, options.keep_fp16 + options.keep_fp32, "")
    also = matched(names, options.also_int8, "")
    assert keep.isdisjoint(also)
    before, after = (set(p.int8) for p in (made.placements[MODEL], place(graph, keep, also)))
    assert after <= before
    return frozenset(before - after)


def options_of(command: str) -> QuantizeOptions:
    """What the command line makes of a printed command."""
    words = shlex.split(command)
    assert words[:2] == ["pointrend-deploy", "quantize"]
    seen: list[QuantizeOptions] = []

    def remember(bundle: Path, options: QuantizeOptions, progress: object) -> None:
        seen.append(options)
        raise DeployError("seen")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "quantize_bundle", remember)
        CliRunner().invoke(app, words[1:])
    seen[0].check()
    return seen[0]


def test_where_int8_is_good_enough_no_block_is_left_out(ask: Asking) -> None:
    found, _ = ask(max_drop=99.0)
    assert found.leave_out == frozenset()
    assert "leave no block out" in found.lines[-1]


def test_applied_blocks_are_said_to_be(ask: Asking) -> None:
    limit = table_of(ask()[0])[0][0] / 3
    found, _ = ask(max_drop=limit, apply=True)
    assert found.leave_out
    assert any(line.startswith("applied ") for line in found.lines)


def test_a_limit_that_fp16_does_not_meet_is_refused_with_its_cost(ask: Asking) -> None:
    progress = Counting()
    with pytest.raises(DeployError, match=r"[0-9.]+ points are lost with every layer in FP16"):
        ask(progress, ruined=True, max_drop=0.01)
    assert progress.steps[-1][2] == 3, "known from the first graph, and no other is run"


def test_much_lost_in_fp16_already_is_said(ask: Asking) -> None:
    found, _ = ask(ruined=True)
    assert any("points are lost with all in FP16 already" in line for line in found.lines)
    assert not any("tied" in line for line in found.lines), "no cause is named: none was measured"
    assert not any("already" in line for line in ask()[0].lines)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_limit_that_is_not_above_zero_makes_no_sense(ask: Asking, limit: float) -> None:
    with pytest.raises(UsageError, match="--max-drop"):
        ask(max_drop=limit)


def test_pictures_are_needed(ask: Asking) -> None:
    with pytest.raises(UsageError, match="--sensitivity needs pictures"):
        ask(images=None)


def test_nothing_in_int8_is_nothing_to_measure(ask: Asking) -> None:
    with pytest.raises(DeployError, match="no layer is in INT8"):
        ask(keep_fp16=("backbone", "sem_seg_head"))


def test_what_the_options_leave_out_is_no_block_and_stays_in_the_command(ask: Asking) -> None:
    kept = ("backbone.fpn_lateral2", "*stem*")
    limit = table_of(ask()[0])[0][0] / 3
    found, made = ask(keep_fp16=kept, method="max", max_drop=limit)
    assert {name for _, name in table_of(found)} == BLOCKS - {"backbone.bottom_up.stem"}
    options = options_of(found.lines[-1])
    assert options.keep_fp16[:2] == kept
    assert options.method == "max"
    assert meant_by(found.lines[-1], made) == found.leave_out


def test_with_fp32_for_the_rest_the_command_says_so(ask: Asking) -> None:
    limit = table_of(ask()[0])[0][0] / 3
    found, made = ask(fallback="fp32", max_drop=limit)
    assert "blocks in FP32" in next(line for line in found.lines if line.startswith("proposal"))
    assert "lost with all in FP32" in found.lines[2]
    options = options_of(found.lines[-1])
    assert (options.fallback, options.keep_fp32, options.keep_fp16) == ("fp32", (BAD,), ())
    assert meant_by(found.lines[-1], made) == found.leave_out


def test_layers_put_in_besides_are_measured_and_can_be_left_out_again(ask: Asking) -> None:
    found, made = ask(also_int8=("sem_seg_head.predictor",), max_drop=0.02)
    assert "sem_seg_head.predictor" in made.placements[MODEL].int8
    assert "sem_seg_head.predictor" in found.leave_out
    assert meant_by(found.lines[-1], made) == found.leave_out


NAMES = [
    "backbone.fpn_lateral2",
    "backbone.fpn_output2",
    "roi_heads.mask_head.mask_fcn1",
    "roi_heads.mask_head.deconv",
    "roi_heads.mask_head.coarse_head.fc1",
    "roi_heads.mask_head.coarse_head.prediction",
    "roi_heads.mask_head",
]


@pytest.mark.parametrize(
    ("block", "layers", "others", "expected"),
    [
        ("backbone.fpn", NAMES[:2], NAMES[2:], ["backbone.fpn_*"]),
        ("roi_heads.mask_head", NAMES[2:4], [], ["roi_heads.mask_head"]),
        ("roi_heads.mask_head", NAMES[2:4], NAMES[4:5], NAMES[2:4]),
        ("roi_heads.mask_head.coarse_head", NAMES[4:5], [], ["roi_heads.mask_head.coarse_head"]),
        ("roi_heads.mask_head", NAMES[6:], NAMES[:6], ["roi_heads.mask_hea[d]"]),
    ],
)
def test_patterns_mean_the_block_and_none_of_the_others(
    block: str, layers: list[str], others: list[str], expected: list[str]
) -> None:
    found = patterns(block, layers, NAMES, others)
    assert found == expected
    meant = matched(NAMES, found, "")
    assert meant >= set(layers)
    assert meant.isdisjoint(others)


def test_of_many_pictures_some_are_taken_evenly(bundle: Bundle, tmp_path: Path) -> None:
    for number in range(40):
        Image.fromarray(colour_picture(8, 8, number)).save(tmp_path / f"{number:02}.png")
    options = QuantizeOptions(precision="int8", images=tmp_path)
    found = pictures_for(bundle, options, tmp_path)
    taken = [int(path.stem) for path in found.paths]
    assert len(taken) == MOST
    assert taken[0] == 0
    assert set(np.diff(taken)) == {2, 3}
    assert found.others == found.paths
    lines = found.lines([], Measure("points", "of what"))
    assert lines[0].startswith("sensitivity on 16 of 40 pictures")
    assert "16 of 16 pictures were not in the calibration" in lines[2]
    lines = found.lines(found.paths[:3], Measure("points", "of what"))
    assert "13 of 13 pictures were not in the calibration" in lines[3]


def test_pictures_of_the_calibration_are_known_by_their_contents(
    bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "another name.png").write_bytes((images / "0.png").read_bytes())
    options = QuantizeOptions(precision="int8", images=tmp_path)
    assert pictures_for(bundle, options, tmp_path).others == ()
    cache = tmp_path / "ranges.cache"
    cache.write_text("\ufeffTRT-100300-EntropyCalibration2\n")  # an editor's mark at the start
    options = dataclasses.replace(options, ranges=cache)
    assert pictures_for(bundle, options, images).others == (), "a cache does not name pictures"


def test_a_picture_that_cannot_be_read_is_named_and_left_out(
    ask: Asking, images: Path, tmp_path: Path
) -> None:
    whole = (images / "0.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole)
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    found, _ = ask(images=tmp_path)
    assert found.lines[0].startswith("sensitivity on 1 of 2 pictures")
    assert "1 cannot be read and are left out: b.png" in found.lines[2]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DeployError, match=r"b\.png is truncated"):
        ask(images=tmp_path)


def test_an_instance_bundle_that_finds_nothing_has_no_scale(tmp_path: Path) -> None:
    things = Bundle.open(write_things_bundle(tmp_path / "b"))
    fp32 = {MODEL: onnx.load(things.path / MODEL)}
    dark, bright = tmp_path / "dark.png", tmp_path / "bright.png"
    Image.fromarray(bright_picture(32, 64, [])).save(dark)
    Image.fromarray(bright_picture(32, 64, [0, 3])).save(bright)
    with pytest.raises(DeployError, match="finds nothing in any of 1 picture"):
        Scale(things, [dark], fp32, lambda: None)
    scale = Scale(things, [dark, bright], fp32, lambda: None)
    assert scale.points(fp32, lambda: None) == 0.0
    blind = onnx.ModelProto.FromString(fp32[MODEL].SerializeToString())
    half = next(t for t in blind.graph.initializer if t.name == "half")
    half.CopyFrom(onnx.numpy_helper.from_array(np.array(2.0, np.float32), "half"))
    assert scale.points({MODEL: blind}, lambda: None) == 100.0
