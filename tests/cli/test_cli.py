"""The command line as a user meets it: outputs, messages, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.recipe.semantic import Recipe
from tests.conftest import SIZE, Exporter, labels_of
from tests.repository import ROOT


def cli(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pointrend_deploy", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def recipe_file(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_bytes(msgspec.toml.encode(recipe))
    return path


def test_export_run_compare_report(
    recipe_file: Path, weights: Path, pictures: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    done = cli("export", recipe_file, "--weights", weights, "--out", bundle, "--size", "64x96")
    assert done.returncode == 0, done.stderr
    assert "labels agree on" in done.stdout
    done = cli("run", bundle, pictures, "--out", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    truth = tmp_path / "truth"
    truth.mkdir()
    for name in ("0", "1", "2"):
        labels = labels_of(tmp_path / "results" / "labels" / f"{name}.png")
        assert labels.shape == labels_of(pictures / f"{name}.png").shape[:2]
        Image.fromarray(labels).save(truth / f"{name}.png")
    done = cli("compare", bundle, "--images", pictures, "--labels", truth)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "passed" in done.stdout
    parity = json.loads((bundle / "parity.json").read_text())
    assert set(parity["runs"]) == {"export", "compare"}
    rows = {
        (row["prediction"], row["against"]): row for row in parity["runs"]["compare"]["metrics"]
    }
    assert rows["bundle", "truth"]["miou"] == pytest.approx(1.0)
    assert rows["coarse", "truth"]["miou"] < 1.0
    done = cli("report", bundle, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "report" / "report.html").read_text()
    assert html == (bundle / "report.html").read_text()
    assert "Passed" in html


def test_a_folder_with_bad_pictures(exported: Exporter, pictures: Path, tmp_path: Path) -> None:
    raw = (pictures / "0.png").read_bytes()
    Image.open(pictures / "0.png").save(pictures / "cut.jpg")
    jpeg = (pictures / "cut.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "notes.png").write_text("not a picture")
    done = cli("run", exported(), pictures, "--out", tmp_path / "results")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for name in ("cut.jpg", "empty.png", "notes.png"):
        assert f"skipped {name}" in done.stdout
    written = {path.name for path in (tmp_path / "results" / "labels").iterdir()}
    assert written == {"0.png", "1.png", "2.png"}
    assert (pictures / "0.png").read_bytes() == raw


def test_pictures_of_every_kind(exported: Exporter, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    folder = tmp_path / "kinds"
    folder.mkdir()
    image = Image.fromarray(rgb)
    image.convert("L").save(folder / "grey.png")
    image.convert("RGBA").save(folder / "rgba.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("P").save(folder / "palette.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(rgb[:1]).save(folder / "one_high.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "rotated.jpg", exif=exif)
    done = cli("run", exported(), folder, "--out", tmp_path / "results")
    assert done.returncode == 0, done.stderr + done.stdout
    shapes = {p.stem: labels_of(p).shape for p in (tmp_path / "results" / "labels").iterdir()}
    assert shapes.pop("rotated") == (50, 40)
    assert shapes.pop("one_high") == (1, 50)
    assert set(shapes.values()) == {(40, 50)}
    assert len(shapes) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "{none}", "{pictures}", "--out", "{out}"), "is not a bundle"),
        (("run", "{bundle}", "{none}", "--out", "{out}"), "{none}"),
        (("run", "{bundle}", "{empty}", "--out", "{out}"), "no picture"),
        (("compare", "{bundle}", "--images", "{none}"), "{none}"),
        (("compare", "{bundle}", "--images", "{pictures}", "--labels", "{empty}"), "{empty}"),
        (("report", "{none}"), "is not a bundle"),
        (
            ("export", "{none}", "--weights", "{none}", "--out", "{out}", "--size", "64x64"),
            "cannot read the recipe",
        ),
    ],
)
def test_wrong_input_is_an_error_with_words(
    exported: Exporter,
    pictures: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "none": str(tmp_path / "none"),
        "bundle": str(exported()),
        "pictures": str(pictures),
        "empty": str(tmp_path / "empty"),
        "out": str(tmp_path / "out"),
    }
    done = cli(*(text.format(**places) for text in arguments))
    assert done.returncode == 1, done.stderr
    assert "\nerror: " in "\n" + done.stderr
    assert words.format(**places) in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_usage_errors_exit_2(tmp_path: Path) -> None:
    for size in ("64x", "axb", "0x64", "0", "64x64x3", "64*64", "-64"):
        done = cli("export", "r.toml", "--weights", "w", "--out", tmp_path / "o", "--size", size)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"error: --size {size} is not HEIGHTxWIDTH"), done.stderr
    assert cli("paint").returncode == 2
    assert cli("run").returncode == 2


def test_a_failed_gate_exits_3(exported: Exporter, pictures: Path, tmp_path: Path) -> None:
    """The bundle's graph is exchanged for one that flips its labels, with honest hashes."""
    import onnx

    from pointrend_deploy.bundle.folder import Bundle, sha256_of
    from pointrend_deploy.bundle.manifest import encode_manifest

    out = tmp_path / "bundle"
    shutil.copytree(exported(), out)
    graph = onnx.load(out / "model.onnx")
    for node in graph.graph.node:
        for index, name in enumerate(node.output):
            if name == "labels":
                node.output[index] = "labels.before"
    seven = onnx.numpy_helper.from_array(np.array(1, np.uint8), "one")
    graph.graph.initializer.append(seven)
    graph.graph.node.append(
        onnx.helper.make_node("BitwiseXor", ["labels.before", "one"], ["labels"])
    )
    onnx.save(graph, out / "model.onnx")
    manifest = Bundle.__new__(Bundle)
    table = json.loads((out / "manifest.json").read_text())
    del table["digest"], manifest
    table["files"]["model.onnx"] = sha256_of(out / "model.onnx")
    from pointrend_deploy.bundle.manifest import Manifest

    (out / "manifest.json").write_bytes(encode_manifest(msgspec.convert(table, Manifest)))
    done = cli("compare", out, "--images", pictures)
    assert done.returncode == 3, done.stderr + done.stdout
    assert "first stage that differs: labels" in done.stdout
    assert "FAILED" in done.stdout
    assert json.loads((out / "parity.json").read_text())["runs"]["compare"]["passed"] is False


def test_run_needs_no_torch(exported: Exporter, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked" / "torch").mkdir(parents=True)
    (tmp_path / "blocked" / "torch" / "__init__.py").write_text("raise ImportError('no torch')")
    blocked = str(tmp_path / "blocked")
    done = cli("run", exported(), pictures, "--out", tmp_path / "out", PYTHONPATH=blocked)
    assert done.returncode == 0, done.stderr


def test_doctor(tmp_path: Path) -> None:
    done = cli("doctor")
    assert done.returncode == 0
    assert "what that allows" in done.stdout
    found = json.loads(cli("doctor", "--json").stdout)
    assert found["packages"]["torch"]
    assert {row["verb"]: row["able"] for row in found["abilities"]}["export"]


def test_version_and_help() -> None:
    assert cli("--version").stdout.startswith("pointrend-deploy ")
    assert "compare" in cli("--help").stdout
    assert SIZE == (64, 96)


def test_ground_truth_beside_another_results_json_is_safe(
    exported: Exporter, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    (out / "labels").mkdir(parents=True)
    (out / "labels" / "0.png").write_bytes(b"truth")
    (out / "results.json").write_text('{"rows": {}}')
    done = cli("run", exported(), pictures, "--out", out)
    assert done.returncode == 1
    assert "might be lost" in done.stderr
    assert (out / "labels" / "0.png").read_bytes() == b"truth"


def test_a_stopped_run_keeps_what_is_done(
    exported: Exporter, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointrend_deploy import atomic, open_runner
    from pointrend_deploy.errors import DeployError
    from pointrend_deploy.run.folder import run_pictures

    runner, out = open_runner(exported(), "onnx"), tmp_path / "out"
    run_pictures(runner, pictures, out)
    before = json.loads((out / "results.json").read_text())
    original, allowed = atomic.write_bytes, [3]

    def refuse_later(path: Path, data: bytes) -> None:
        if "labels" in str(path) or "overlays" in str(path):
            if not allowed[0]:
                raise DeployError("the disk is full", "free some space")
            allowed[0] -= 1
        original(path, data)

    monkeypatch.setattr(atomic, "write_bytes", refuse_later)
    with pytest.raises(DeployError) as caught:
        run_pictures(runner, pictures, out)
    assert "1 of 3 pictures were done" in caught.value.hint
    found = json.loads((out / "results.json").read_text())
    assert len(before["pictures"]) == 3
    assert (len(found["pictures"]), found["complete"]) == (1, False)


def test_compare_does_not_compare_pytorch_with_itself(exported: Exporter, pictures: Path) -> None:
    done = cli("compare", exported(), "--images", pictures, "--runner", "torch")
    assert done.returncode == 2


def test_a_lost_record_is_said(exported: Exporter, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(exported(), out)
    (out / "parity.json").unlink()
    for arguments in (("report", out), ("compare", out, "--images", pictures)):
        done = cli(*arguments)
        assert done.returncode == 1
        assert "has no parity.json" in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_says_so_and_leaves_nothing(
    recipe_file: Path, weights: Path, tmp_path: Path, name: str
) -> None:
    import signal
    import time

    out = tmp_path / "places" / "bundle"
    command = ["export", recipe_file, "--weights", weights, "--out", out, "--size", "64x96"]
    child = subprocess.Popen(
        [sys.executable, "-m", "pointrend_deploy", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stderr is not None
    line = child.stderr.readline()
    assert "reading weights" in line
    time.sleep(0.5)
    child.send_signal(getattr(signal, name))
    rest = child.stderr.read()
    assert child.wait() == 128 + getattr(signal, name)
    assert "error: interrupted" in rest
    assert "Traceback" not in rest
    assert not out.exists()


def test_a_full_device_behind_stdout() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pointrend_deploy", "doctor"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
