"""Bundles that earlier versions wrote still open: ``tests/goldens/bundles`` holds what they said.

Manifests and parity records of the demonstration bundles, byte for byte as commit 8a4e5e3 wrote
them: with FP16 and INT8 graphs, a comparison of the precisions, and in one an engine's record.
"""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import msgspec
import pytest

from pointrend_deploy.bundle.folder import PARITY, Bundle
from pointrend_deploy.bundle.manifest import MANIFEST, encode_manifest, read_manifest
from pointrend_deploy.bundle.records import EngineShape, PartShape
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.record import runs
from pointrend_deploy.report.report import render_html, render_markdown
from pointrend_deploy.report.verdict import verdict
from tests.repository import ROOT

EARLIER = ROOT / "tests" / "goldens" / "bundles"
TASKS = ("semantic", "instance")


@pytest.mark.parametrize("task", TASKS)
def test_the_manifest_is_read_and_written_again_as_it_was(task: str) -> None:
    bundle = Bundle.open(EARLIER / task)
    manifest = bundle.manifest
    assert manifest.recipe.task == task
    assert set(manifest.graphs) == {"fp32", "fp16", "int8"}
    assert set(manifest.quantized) == {"fp16", "int8"}
    assert set(manifest.engines) == ({"rtx-sm86-fp16-native"} if task == "semantic" else set())
    assert encode_manifest(manifest) == (EARLIER / task / MANIFEST).read_bytes()


def test_later_keys_of_a_recipe_are_written_where_they_matter() -> None:
    manifest = Bundle.open(EARLIER / "semantic").manifest
    normed = msgspec.structs.replace(manifest.recipe.fpn, norm="BN")
    recipe = msgspec.structs.replace(manifest.recipe, fpn=normed)
    written = encode_manifest(msgspec.structs.replace(manifest, recipe=recipe))
    assert json.loads(written)["recipe"]["fpn"]["norm"] == "BN"
    assert "norm" not in json.loads(encode_manifest(manifest))["recipe"]["fpn"]


def test_the_shape_of_an_engine_is_written_where_it_was_counted(tmp_path: Path) -> None:
    manifest = Bundle.open(EARLIER / "semantic").manifest
    ((name, record),) = manifest.engines.items()
    (engine,) = record.engines
    assert engine.shape is None
    shape = EngineShape(
        layers=3,
        plugins={"PointRendSample": 1},
        reformats=1,
        bytes=100,
        constant_bytes=20,
        parts={"rest": PartShape(layers=3, plugins=1, reformats=1, bytes=100)},
        sizes={"R": 20},
    )
    engines = (msgspec.structs.replace(engine, shape=shape),)
    record = msgspec.structs.replace(record, engines=engines)
    counted = msgspec.structs.replace(manifest, engines={name: record})
    (tmp_path / MANIFEST).write_bytes(encode_manifest(counted))
    assert read_manifest(tmp_path) == counted
    written = json.loads(encode_manifest(counted))["engines"][name]["engines"][0]
    assert written["shape"]["parts"]["rest"]["bytes"] == 100
    assert "shape" not in json.loads(encode_manifest(manifest))["engines"][name]["engines"][0]


@pytest.mark.parametrize("task", TASKS)
def test_the_parity_record_is_read_and_written_again_as_it_was(task: str) -> None:
    parity = runs.of_bundle(Bundle.open(EARLIER / task))
    assert bool(parity)
    assert {"export", "compare"} <= set(parity.runs)
    assert parity.precisions is not None
    assert [column.precision for column in parity.precisions.columns] == ["fp32", "fp16", "int8"]
    before = json.loads((EARLIER / task / PARITY).read_text())
    again = json.loads(runs.encode(parity))
    assert without_later_fields(again, before) == before
    assert runs.decode(runs.encode(parity)) == parity


def without_later_fields(again: Any, before: Any) -> Any:
    """Drop the fields that ``before`` does not have; each must be empty."""
    if isinstance(before, dict):
        later = {key: value for key, value in again.items() if key not in before}
        assert not any(later.values()), later
        return {key: without_later_fields(again[key], value) for key, value in before.items()}
    if isinstance(before, list):
        return [without_later_fields(a, b) for a, b in zip(again, before, strict=True)]
    return again


@pytest.mark.parametrize("task", TASKS)
def test_reports_are_rendered_from_them(task: str) -> None:
    bundle = Bundle.open(EARLIER / task)
    manifest = msgspec.to_builtins(bundle.manifest)
    record = msgspec.to_builtins(runs.of_bundle(bundle))
    score = "82.4" if task == "semantic" else "55.7"
    for page in (render_html(manifest, record, ()), render_markdown(manifest, record, ())):
        assert f"demo_{task}" in page.replace("\\", "")
        assert score in page
        assert "this record was written without them" in page, "no intervals"
    # the figures that a warning rests on were in the record before there were warnings
    status = verdict(runs.of_bundle(bundle)).status
    assert status == {"semantic": "passed", "instance": "warning"}[task]


@pytest.mark.parametrize("task", TASKS)
def test_a_changed_record_is_seen(task: str, tmp_path: Path) -> None:
    copytree(EARLIER / task, tmp_path / task)
    record = tmp_path / task / PARITY
    record.write_bytes(record.read_bytes().replace(b'"passed": true', b'"passed": false', 1))
    with pytest.raises(DeployError, match="not the file that was exported"):
        Bundle.open(tmp_path / task)
