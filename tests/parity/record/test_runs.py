from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from pointrend_deploy.bundle.folder import PARITY, Bundle
from pointrend_deploy.bundle.manifest import MANIFEST, encode_manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.semantic.verify import verify_stages
from tests.fixtures import tiny_pointrend as tiny
from tests.fixtures.fake_bundle import manifest


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


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A folder that is a bundle only as far as records go."""
    described = manifest(files={})
    (tmp_path / MANIFEST).write_bytes(encode_manifest(described))
    return Bundle(tmp_path, described)


def keep(bundle: Bundle, name: str, run: results.Run) -> Bundle:
    """Add a run to the record of a bundle, as `compare` and `export` do."""
    parity = results.merged(results.of_bundle(bundle), name, run)
    return bundle.update({PARITY: results.encode(parity)})


def test_a_run_comes_back_as_it_was_written(bundle: Bundle) -> None:
    run = example()
    written = keep(bundle, "export", run)
    assert results.of_bundle(written) == results.Parity(runs={"export": run})
    assert json.loads((bundle.path / PARITY).read_text())["schema"] == 1


def test_a_second_run_joins_the_first_and_a_third_replaces_it(bundle: Bundle) -> None:
    written = keep(bundle, "export", example())
    written = keep(written, "compare", example("compare"))
    written = keep(written, "compare", example("compare", "k clamped"))
    parity = results.of_bundle(written)
    assert set(parity.runs) == {"export", "compare"}
    assert parity.runs["export"]
    assert not parity.runs["compare"]
    assert parity.runs["compare"].first_divergent == "step0.indices"


def test_a_bundle_without_a_record_has_an_empty_one(bundle: Bundle) -> None:
    assert results.of_bundle(bundle).runs == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": 1, "runs": {"export": {"kind": "other"}}}', "export|kind"),
        ('{"schema": 1, "runs": []}', "runs"),
    ],
)
def test_what_is_no_record_is_refused_and_left_as_it_was(
    bundle: Bundle, text: str, words: str
) -> None:
    written = bundle.update({PARITY: text})
    with pytest.raises(DeployError, match=words):
        keep(written, "export", example())
    assert (bundle.path / PARITY).read_text() == text


def test_gates_written_by_an_earlier_version_are_read() -> None:
    """Earlier versions wrote the stage of a gate second; the order of keys does not matter."""
    old = (
        b'{"name": "g", "stage": "coarse", "value": 0.5, "limit": 1.0, "op": "<=", '
        b'"reason": "why", "passed": true}'
    )
    gate = msgspec.json.decode(old, type=results.Gate)
    assert gate and (gate.name, gate.stage, gate.value) == ("g", "coarse", 0.5)
    assert msgspec.json.decode(msgspec.json.encode(gate), type=results.Gate) == gate
