"""A checkpoint with several sets of weights, a prefix and further tensors, through the export."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pointrend_deploy import open_runner
from pointrend_deploy.bundle.folder import Bundle, choices_of_export
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.bundle.records import NotChecked
from pointrend_deploy.cli.app import app
from pointrend_deploy.pictures.generated import verification_picture
from pointrend_deploy.verbs.export.checkpoint_lines import checkpoint_lines
from tests.conftest import Exporter
from tests.repository import ROOT

DEMO = ROOT / "demo" / "demo_semantic.safetensors"


@pytest.fixture(scope="module")
def manifest(exported: Exporter) -> Manifest:
    return Bundle.open(exported()).manifest


def test_the_set_that_was_chosen_is_exported_and_read_again(tmp_path: Path) -> None:
    weights = load_file(DEMO)
    ema = {f"model._orig_mod.{name}": value for name, value in weights.items()}
    raw = {name: torch.zeros_like(value) for name, value in weights.items()}
    checkpoint, out = tmp_path / "last.ckpt.pth", tmp_path / "bundle"
    torch.save({"state_dict": raw, "ema": ema | {"loss.weight": torch.ones(3)}}, checkpoint)
    words = ["export", "demo_semantic", "--weights", str(checkpoint), "--out", str(out)]
    words += ["--size", "64x64", "--no-weights", "--weights-key", "ema"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert "--ignore-extra" in str(refused.exception)
    done = CliRunner().invoke(app, [*words, "--ignore-extra"])
    assert done.exit_code == 0, done.output
    for line in (
        "weights     taken from ema of last.ckpt.pth; not used: state_dict",
        "weights     the prefix model._orig_mod. was taken off",
        "weights     1 tensor ignored that the model has no place for: loss.weight",
        'not checked   input.channel_order = "RGB"',
    ):
        assert line in done.stdout
    record = Bundle.open(out).manifest.weights
    assert (record.source_key, record.source_others) == ("ema", ("state_dict",))
    assert choices_of_export(record, DEMO) == {}
    reference = open_runner(out, runner="torch", weights=checkpoint)
    picture = verification_picture(64, 64, 0)
    assert np.array_equal(reference(picture)["labels"], open_runner(out)(picture)["labels"])
    report = (out / "report.html").read_text()
    assert "not used: state_dict" in report
    assert "nothing in the checkpoint tells them" in report


def test_an_ordinary_checkpoint_needs_no_line_on_its_weights(manifest: Manifest) -> None:
    lines = checkpoint_lines(manifest)
    assert not [line for line in lines if line.startswith("weights")]
    assert lines[0].startswith("not checked ")


def test_long_values_and_lists_are_shortened(manifest: Manifest) -> None:
    names = tuple(NotChecked(key=f"classes.n{n}", value=["x" * 30] * 9) for n in range(20))
    weights = msgspec.structs.replace(
        manifest.weights, source_ignored=tuple(f"loss.{n}" for n in range(9))
    )
    lines = checkpoint_lines(msgspec.structs.replace(manifest, not_checked=names, weights=weights))
    assert lines[0] == (
        "weights     9 tensors ignored that the model has no place for: loss.0, loss.1, loss.2, "
        "and 6 more"
    )
    assert lines[1].startswith("not checked 20 values taken from the recipe")
    assert len(lines) == 8
    assert max(map(len, lines[2:])) < 100
