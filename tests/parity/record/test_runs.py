from __future__ import annotations

import json
from pathlib import Path

import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.semantic.verify import verify_stages
from tests.fixtures import tiny_pointrend as tiny


def example(kind: str = "export", mistake: str = "") -> results.Run:
    found = verify_stages(tiny.run(), tiny.run(mistake, noise=2e-6), tiny.recipe())
    return results.Run(
        kind=kind,  # type: ignore[arg-type]
        passed=found.passed,
        candidate="onnx",
        reference="torch",
        created="2026-01-02T03:04:05Z",
        canvas_hw=(64, 96),
        first_divergent=found.first_divergent,
        stages=found.stages,
        points=found.points,
        gates=found.gates,
    )


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    written = results.add_run(path, "export", example())
    assert results.load(path) == written
    assert json.loads(path.read_text())["schema"] == 1


def test_a_second_run_joins_the_first_and_a_third_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    results.add_run(path, "export", example())
    results.add_run(path, "compare", example("compare"))
    parity = results.add_run(path, "compare", example("compare", "k clamped"))
    assert set(parity.runs) == {"export", "compare"}
    assert parity.runs["export"]
    assert not parity.runs["compare"]
    assert results.load(path).runs["compare"].first_divergent == "step0.indices"


def test_an_absent_file_is_an_empty_record(tmp_path: Path) -> None:
    assert results.load(tmp_path / "parity.json").runs == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": 1, "runs": {"export": {"kind": "other"}}}', "export|kind"),
        ('{"schema": 1, "runs": []}', "runs"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "parity.json"
    path.write_text(text)
    with pytest.raises(DeployError, match=words):
        results.load(path)


def test_a_refused_file_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    path.write_text("{")
    with pytest.raises(DeployError):
        results.add_run(path, "export", example())
    assert path.read_text() == "{"
