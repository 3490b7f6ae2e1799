"""What is suspicious about a truth stands in the record, in the terminal and in both reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.parity.comparison import CompareOptions
from pointrend_deploy.parity.record.runs import Parity, Run, decode, encode
from pointrend_deploy.parity.semantic.task import SemanticParity
from pointrend_deploy.report import report
from pointrend_deploy.report.terminal import table
from tests.fixtures.fake_bundle import TinyRunner, reference
from tests.report import example_instance_report, example_report
from tests.report.example_report import NASTY
from tests.report.pages import visible

NOTES = ("1 of 6 classes without a pixel in the whole set: lake", f"1 polygon left out: {NASTY}")


@pytest.mark.parametrize("example", [example_report, example_instance_report])
def test_every_note_is_a_line_everywhere(tmp_path: Path, example: Any) -> None:
    manifest, parity, tiles = example.make(tmp_path)
    run = msgspec.convert(parity["runs"]["compare"], Run)
    plain = {"schema": 1, "runs": {"compare": parity["runs"]["compare"]}}
    assert "About the truth" not in report.render_html(manifest, plain, tiles)
    assert "truth:" not in table(run, tmp_path)
    noted = msgspec.structs.replace(run, truth_notes=NOTES)
    record = Parity(runs={"compare": noted})
    assert decode(encode(record)) == record
    lines = table(noted, tmp_path).splitlines()
    assert [line for line in lines if line.startswith("truth: ")] == [f"truth: {n}" for n in NOTES]
    html = report.render_html(manifest, msgspec.to_builtins(record), tiles)
    words = visible(html)
    assert "About the truth:" in words and all(" ".join(n.split()) in words for n in NOTES)
    assert "<script>" not in html
    markdown = report.render_markdown(manifest, msgspec.to_builtins(record), tiles)
    assert f"- {NOTES[0]}\n" in markdown and "- 1 polygon left out: " in markdown
    assert "<script>" not in markdown


def test_a_comparison_of_label_maps_carries_its_notes(tmp_path: Path) -> None:
    candidate = TinyRunner()
    names = candidate.bundle.manifest.semantic.classes.names
    for folder, values in (
        ("images", np.full((64, 96, 3), 90, np.uint8)),
        ("labels", np.eye(64, 96, dtype=np.uint8)),
    ):
        (tmp_path / folder).mkdir()
        Image.fromarray(values).save(tmp_path / folder / "a.png")
    task, images = SemanticParity(), tmp_path / "images"
    for labels in (tmp_path / "labels", None):
        given = task.open_truth(candidate.bundle, images, CompareOptions(labels=labels))
        run = task.compare(
            candidate, reference(), given, lambda seen: None, None, {}, lambda *done: None
        )
        if labels is None:
            assert run.truth_notes == ()
        else:
            (note,) = run.truth_notes
            assert note.startswith(f"{len(names) - 2} of {len(names)} classes without a pixel")
