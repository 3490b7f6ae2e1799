"""`calibrate`: what it observes, that it can be killed at any moment, and what it says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from pointrend_deploy.bundle.folder import DETECTOR, MASKS, MODEL, RANGES, Bundle
from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.cli import app
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.quantize.partial import partial_path
from pointrend_deploy.quantize.ranges import decode
from pointrend_deploy.quantize.scales import all_amax
from pointrend_deploy.quantize.tensorrt_cache import read_cache
from pointrend_deploy.verbs.calibrate import calibrate
from pointrend_deploy.verbs.calibrate import observe as calibration_observe
from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle
from tests.fixtures.small_graphs import Graph
from tests.fixtures.tiny_bundle import tiny_manifest, write_bundle
from tests.fixtures.tiny_instances import bright_picture, things_graphs, things_manifest

HW = (32, 48)
PADDED = (32, 64)
COUNT = 4
FIRST = "backbone.bottom_up.stem.conv1"


def small_bundle(path: Path, batch: int = 1, seed: int = 7) -> Path:
    """Two convolutions of a backbone over the canvas."""
    g = Graph(image=(batch, 3, *PADDED))
    g.random = np.random.default_rng(seed)
    x = g.relu(g.conv(FIRST, "image", 4, 3, 3, 3))
    out = g.conv("backbone.bottom_up.res2.0.conv1", x, 2, 4, 1, 1)
    model = g.model(out)
    return write_bundle(path, tiny_manifest(HW, batch), {MODEL: model.SerializeToString()})


def write_picture(folder: Path, name: str, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    rgb = np.random.default_rng(seed).integers(0, 256 - 40 * (seed % 5), (20, 30, 3), np.uint8)
    Image.fromarray(rgb).save(folder / name)
    return folder / name


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "bundle")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index in range(COUNT):
        write_picture(tmp_path / "images", f"{index}.png", index)
    return tmp_path / "images"


def run(bundle: Path, images: Path, **options: Any) -> Any:
    return calibrate_bundle(bundle, images, CalibrateOptions(**options))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every call of the graph."""
    made: list[int] = []
    add = calibration_observe._Watch.add

    def counted(self: Any, batch: Any) -> None:
        made.append(len(batch.pictures))
        add(self, batch)

    monkeypatch.setattr(calibration_observe._Watch, "add", counted)
    return made


def test_ranges_are_those_of_the_values(bundle: Path, images: Path) -> None:
    result = run(bundle, images)
    opened = Bundle.open(bundle)
    assert opened.file(RANGES).read_bytes() == result.file.read_bytes()
    ranges = decode(result.file.read_bytes(), "")
    assert ranges.graphs == {MODEL: opened.manifest.files[MODEL]}
    assert [(p.name, p.sha256) for p in ranges.pictures] == [
        (f"{i}.png", hashlib.sha256((images / f"{i}.png").read_bytes()).hexdigest())
        for i in range(COUNT)
    ]
    values = ranges.tensors[MODEL]
    assert list(values) == ["image", f"{FIRST}.relu.out"]
    for seen, channels in zip(values.values(), (3, 4), strict=True):  # padding is counted too
        assert sum(seen.histogram.counts) == COUNT * channels * PADDED[0] * PADDED[1]
    most = max((255 - 103.53) / 57.375, 123.675 / 58.395)
    assert values["image"].amax <= most + 1e-5
    assert not partial_path(result.file).exists()
    assert result
    assert "next        pointrend-deploy quantize" in result.summary()
    assert "4 pictures are few" in result.summary()


def test_the_order_of_pictures_changes_no_range(bundle: Path, images: Path) -> None:
    names = [f"{i}.png" for i in range(COUNT)]
    found = []
    for order in (names, names[::-1]):
        listing = images / "list.txt"
        listing.write_text("\n".join(order))
        found.append(run(bundle, listing, restart=True).ranges)
    assert found[0].tensors == found[1].tensors
    assert [p.name for p in found[1].pictures] == names[::-1]


def test_a_batch_that_is_filled_up_counts_real_pictures_only(tmp_path: Path, images: Path) -> None:
    alone = run(small_bundle(tmp_path / "one"), images).ranges.tensors[MODEL]
    three = run(small_bundle(tmp_path / "three", batch=3), images).ranges.tensors[MODEL]
    for name, seen in alone.items():
        assert sum(three[name].histogram.counts) == sum(seen.histogram.counts)
        assert three[name].amax == pytest.approx(seen.amax, rel=1e-5)
        moved = np.subtract(three[name].histogram.counts, seen.histogram.counts)
        assert np.abs(moved).sum() <= 1e-3 * sum(seen.histogram.counts)


KILLING = """
import os, signal, sys
from pathlib import Path
from pointrend_deploy import atomic
from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle
bundle, images, moment, number = sys.argv[1:]
seen, write = 0, atomic._write_to_disk
def die(): os.kill(os.getpid(), signal.SIGKILL)
def watched(path, data):
    global seen
    seen += 1
    if seen == int(number) and moment == "while writing":
        path.write_bytes(data[: len(data) // 2])
        die()
    write(path, data)
    if seen == int(number):
        die()
atomic._write_to_disk = watched
calibrate_bundle(bundle, images, CalibrateOptions())
"""


@pytest.mark.parametrize(
    ("moment", "number", "saved"),
    [
        ("while writing", 1, 0),
        ("while writing", 3, 2),
        ("before it takes its place", 2, 1),
        ("while writing", COUNT + 1, COUNT),  # the ranges themselves
        ("before it takes its place", COUNT + 2, COUNT),  # the manifest
    ],
)
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    tmp_path: Path, images: Path, calls: list[int], moment: str, number: int, saved: int
) -> None:
    whole = run(small_bundle(tmp_path / "whole"), images).file.read_bytes()
    calls.clear()
    bundle = small_bundle(tmp_path / "bundle")
    before = {path.name for path in bundle.iterdir()}
    child = subprocess.run(
        [sys.executable, "-c", KILLING, bundle, images, moment, str(number)],
        capture_output=True,
        check=False,
    )
    assert child.returncode == -9, child.stderr
    Bundle.open(bundle)  # sound
    result = run(bundle, images)
    assert result.resumed == saved
    assert sum(calls) == COUNT - saved  # so at most one picture's work was lost
    assert result.file.read_bytes() == whole
    if saved:
        assert f"resumed an interrupted run after {saved} picture" in result.summary()
    left = {path.name for path in bundle.iterdir()} - before - {RANGES}
    assert not [name for name in left if RANGES in name], left


def interrupted(bundle: Path, images: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Stop a calibration once some pictures are saved."""
    with monkeypatch.context() as patch:
        save, saved = calibration_observe.save, []

        def stopping(path: Path, state: Any) -> None:
            save(path, state)
            saved.append(1)
            if len(saved) == after:
                raise KeyboardInterrupt

        patch.setattr(calibration_observe, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(bundle, images)
    assert partial_path(bundle / RANGES).is_file()


@pytest.mark.parametrize("change", ["model", "pictures", "version", "damage", "edited", "restart"])
def test_a_state_of_another_job_is_not_used(
    bundle: Path, images: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    interrupted(bundle, images, monkeypatch, after=2)
    calls.clear()
    count, said = COUNT, {"model": "another model", "pictures": "other pictures"}.get(change, "")
    if change == "model":
        small_bundle(bundle, seed=8)
    elif change == "pictures":
        write_picture(images, "9.png", 9)
        count += 1
    elif change == "version":
        monkeypatch.setattr("pointrend_deploy.verbs.calibrate.observe.__version__", "0.0.0")
        said = "another version"
    elif change == "damage":
        partial_path(bundle / RANGES).write_bytes(b'{"job": ')
        said = "cannot be read"
    elif change == "edited":
        state = partial_path(bundle / RANGES)
        table = json.loads(state.read_bytes())
        table["tensors"][MODEL]["image"]["histogram"]["counts"][0] = 10**30
        state.write_text(json.dumps(table))
        said = "has impossible contents"
    result = run(bundle, images, restart=change == "restart")
    assert sum(calls) == count
    assert result.resumed == 0
    if said:
        (note,) = (each for each in result.notes if "interrupted" in each)
        assert "is not used: it" in note
        assert said in note
    else:
        assert "not used" not in result.summary()


def test_another_method_needs_no_pictures(
    bundle: Path, images: Path, calls: list[int], tmp_path: Path
) -> None:
    first = run(bundle, images, method="max")
    calls.clear()
    second = run(bundle, images, method="percentile", percentile=90.0)
    assert (calls, second.derived) == ([], True)
    assert "went through this graph before" in second.summary()
    assert (second.ranges.method, second.ranges.percentile) == ("percentile", 90.0)
    assert second.ranges.tensors == first.ranges.tensors
    assert run(bundle, images, method="max").file.read_bytes() == first.file.read_bytes()
    elsewhere = run(bundle, images, method="mse", out=tmp_path / "a b" / "mse.json")
    assert (calls, elsewhere.file) == ([], tmp_path / "a b" / "mse.json")
    assert f"--ranges '{tmp_path / 'a b' / 'mse.json'}'" in elsewhere.summary()
    assert decode((bundle / RANGES).read_bytes(), "").method == "max"
    run(bundle, images, restart=True)
    assert sum(calls) == COUNT


def test_a_cache_holds_the_ranges_of_the_method(bundle: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "made.cache"
    result = run(bundle, images, method="mse", cache=path)
    expected = all_amax(result.ranges.tensors[MODEL], "mse")
    assert read_cache(path) == pytest.approx(expected, rel=1e-6)


def test_a_picture_listed_twice_is_counted_once(
    bundle: Path, images: Path, calls: list[int]
) -> None:
    listing = images / "list.txt"
    listing.write_text("0.png\n1.png\n0.png\n")
    result = run(bundle, listing)
    assert sum(calls) == 2
    assert [each.name for each in result.ranges.pictures] == ["0.png", "1.png"]
    assert "same pixels as an earlier picture, counted once: 0.png" in result.summary()
    assert result  # every picture could be read


def test_an_int8_graph_of_other_ranges_is_said(bundle: Path, images: Path, tmp_path: Path) -> None:
    first = run(bundle, images, method="max")
    record = QuantizedRecord(
        fallback="fp16", ranges_sha256=hashlib.sha256(first.file.read_bytes()).hexdigest()
    )
    Bundle.open(bundle).update(
        {}, lambda manifest: msgspec.structs.replace(manifest, quantized={"int8": record})
    )
    said = "INT8 graph was made with other ranges"
    assert said not in run(bundle, images, method="max").summary()
    assert said not in run(bundle, images, method="mse", out=tmp_path / "r.json").summary()
    assert said in run(bundle, images, method="mse").summary()


def test_bad_blank_and_repeated_pictures_are_said(
    bundle: Path, images: Path, calls: list[int]
) -> None:
    plain = run(bundle, images).ranges.tensors[MODEL]["image"]
    calls.clear()
    (images / "0 copy.png").write_bytes((images / "0.png").read_bytes())
    with Image.open(images / "1.png") as image:
        image.save(images / "1 again.bmp")  # other bytes, the same pixels
    Image.new("RGB", (30, 20), (9, 9, 9)).save(images / "night.png")
    (images / "cut.png").write_bytes((images / "2.png").read_bytes()[:300])
    result = run(bundle, images)
    assert sum(calls) == COUNT + 1
    names = {each.name: each for each in result.ranges.skipped}
    assert set(names) == {"0.png", "1.png", "cut.png"}  # '0 copy.png' sorts before '0.png'
    assert names["0.png"].duplicate
    assert "truncated" in names["cut.png"].reason
    assert [each.name for each in result.skipped] == ["cut.png"]
    assert not result
    said = result.summary()
    assert "same pixels as an earlier picture, counted once: 0.png, 1.png" in said
    assert "blank but counted (remove them" in said
    assert "night.png" in said
    assert "skipped     cut.png: picture" in said
    more = sum(result.ranges.tensors[MODEL]["image"].histogram.counts)
    assert more == sum(plain.histogram.counts) * (COUNT + 1) // COUNT
    assert run(bundle, images).derived  # those that were skipped are known too


def test_the_command_line(bundle: Path, images: Path) -> None:
    command = ["calibrate", str(bundle), "--images", str(images), "--method", "max"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "method      max" in done.stdout
    (images / "cut.png").write_bytes((images / "2.png").read_bytes()[:300])
    assert CliRunner().invoke(app, command).exit_code == 1  # as `run` ends with a skipped picture


def test_no_picture_that_can_be_read_is_an_error(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no")
    with pytest.raises(DeployError, match=r"none of 1 pictures can be read; a\.png"):
        run(bundle, folder)
    assert not (bundle / RANGES).exists()
    with pytest.raises(DeployError, match="no such folder or list"):
        run(bundle, tmp_path / "none")
    with pytest.raises(DeployError, match="is a picture, where a folder or a list of"):
        run(bundle, folder / "a.png")


def test_a_value_that_is_not_finite_is_named_with_its_picture(tmp_path: Path, images: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    model = onnx.load(bundle / MODEL)
    bias = next(t for t in model.graph.initializer if t.name == f"{FIRST}.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.inf, np.float32), bias.name))
    write_bundle(bundle, tiny_manifest(HW), {MODEL: model.SerializeToString()})
    with pytest.raises(DeployError, match=rf"{FIRST}\.relu\.out of model\.onnx: .*, on 0\.png"):
        run(bundle, images)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"percentile": 0.0}, UsageError, "above 0"),
        ({"percentile": 99.0}, UsageError, "is for --method percentile, not for entropy"),
        ({"out": "bundle/mine.json"}, UsageError, "is inside the bundle"),
        ({"cache": "bundle/mine.cache"}, UsageError, "is inside the bundle"),
        ({"out": "images"}, DeployError, "is a folder"),
        ({"out": "images/0.png"}, DeployError, "is a file of another kind"),
        ({"cache": "images/0.png"}, DeployError, "is a file of another kind"),
        ({"out": "x", "cache": "x"}, UsageError, "name the same file"),
    ],
)
def test_places_that_would_lose_something(
    tmp_path: Path,
    bundle: Path,
    images: Path,
    options: dict[str, Any],
    error: type[DeployError],
    message: str,
) -> None:
    given = {k: tmp_path / v if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(error, match=message):
        run(bundle, images, **given)


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Detector and masks; p2 is observed in both, the masks' own quarters besides."""
    manifest = things_manifest(layout="split", batch=2)
    graphs = {
        name: onnx.shape_inference.infer_shapes(
            onnx.ModelProto.FromString(raw), data_prop=True
        ).SerializeToString()
        for name, raw in things_graphs(manifest).items()
    }

    def some(model: onnx.ModelProto) -> tuple[str, ...]:
        masks = any(value.name == "masks" for value in model.graph.output)
        return ("p2", "logit_masks") if masks else ("image", "p2")

    monkeypatch.setattr(calibration_observe, "observable", some)
    return write_bundle(tmp_path / "split", manifest, graphs)


def test_masks_are_seen_on_the_detections(split: Path, tmp_path: Path) -> None:
    images = tmp_path / "things"
    images.mkdir()
    for index, bright in enumerate(((0, 3), (), (1,))):
        Image.fromarray(bright_picture(32, 64, bright, index)).save(images / f"{index}.png")
    result = run(split, images, cache=tmp_path / "both.cache", method="max")
    detector, masks = (result.ranges.tensors[name] for name in (DETECTOR, MASKS))
    assert sum(masks["logit_masks"].histogram.counts) % 3 == 0  # three detections
    per_picture = sum(detector["p2"].histogram.counts) // 3
    assert sum(masks["p2"].histogram.counts) == 2 * per_picture  # none in the second picture
    assert "never computed" not in result.summary()
    both = read_cache(tmp_path / "both.cache")
    assert set(both) == {"image", "p2", "logit_masks"}
    assert both["p2"] == pytest.approx(max(detector["p2"].amax, masks["p2"].amax), rel=1e-6)


def test_values_never_computed_are_said(split: Path, tmp_path: Path) -> None:
    images = tmp_path / "dark"
    images.mkdir()
    for index in range(2):
        Image.fromarray(bright_picture(32, 64, (), index)).save(images / f"{index}.png")
    result = run(split, images)
    assert result.ranges.tensors[MASKS] == {}
    assert "2 values of masks.onnx were never computed: nothing was detected" in result.summary()
    assert run(split, images).derived


def test_the_cache_takes_the_larger_of_two(split: Path, tmp_path: Path) -> None:
    images = tmp_path / "one"
    images.mkdir()
    Image.fromarray(bright_picture(32, 64, (0,), 1)).save(images / "a.png")
    ranges = run(split, images, method="max").ranges
    tensors = {DETECTOR: dict(ranges.tensors[DETECTOR]), MASKS: dict(ranges.tensors[MASKS])}
    seen = tensors[DETECTOR]["p2"]
    tensors[MASKS]["p2"] = msgspec.structs.replace(seen, amax=seen.amax / 2)
    assert calibrate.cache_ranges(msgspec.structs.replace(ranges, tensors=tensors))["p2"] == (
        seen.amax
    )
