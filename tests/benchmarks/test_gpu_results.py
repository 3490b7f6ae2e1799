"""The guides state the figures of the kept GPU run as they are in its record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.repository import ROOT

RECORD = ROOT / "benchmarks" / "results" / "gpu_check_h100.json"
ROWS = (
    ("sampler", "p2 of 1024x2048, 8192 points, fp32"),
    ("sampler", "p2 of 1024x2048, 8192 points, fp16"),
    ("sampler", "p2 of 1024x2048, 8192 points, hwc8"),
    ("sampler", "p2 of 800x1216, 100 RoIs of 784, fp32"),
    ("sampler", "p2 of 800x1216, 100 RoIs of 784, fp16"),
    ("sampler", "p2 of 800x1216, 100 RoIs of 784, hwc8"),
    ("selection", "8192 of 2097152, 1 rows"),
    ("selection", "784 of 50176, 100 rows"),
    ("pooling", "1000 boxes, side 7, fp32"),
    ("pooling", "100 boxes, side 14, fp32"),
    ("suppression", "5 groups of 1000, best 1000"),
    ("suppression", "80 groups of 1000, best 100"),
)
"""The rows of the guide's table of kernels, in its order."""


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORD.read_text())
    return found


def figures(row: dict[str, Any]) -> list[str]:
    """Ours and torch's microseconds, and the ratio; empty where torch has no such kernel."""
    if "ours" not in row:
        return [f"{row['cold_us']:.1f}", "", ""]
    times = [f"{row[side]['cold_us']:.1f}" for side in ("ours", "torch")]
    return [*times, f"{row['ratio_cold']:.2f}"]


def table(text: str) -> list[list[str]]:
    """The cells of the guide's table of kernels without its head and the kernels' names."""
    lines = text.split("| kernel |", 1)[1].splitlines()[2:]
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row[1:]] for row in rows]


def test_the_table_of_kernels_is_the_record(record: dict[str, Any]) -> None:
    kernels = record["parts"]["kernels"]["result"]
    expected = [figures(kernels[kind][name]) for kind, name in ROWS]
    assert table((ROOT / "docs" / "gpu.md").read_text()) == expected


def test_parts_and_machine_are_told_as_they_were(record: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "gpu.md").read_text()
    machine, parts = record["machine"], record["parts"]
    for value in ("gpu", "driver", "torch", "commit"):
        assert str(machine[value]) in text
    assert "**failed**" in text.split("`subdivision` | ", 2)[-1][:12]
    assert parts["subdivision"]["state"] == "failed"
    assert {name for name, part in parts.items() if part["state"] != "passed"} == {"subdivision"}
    assert "engine" not in parts, "the guides say that no engine has run"
    tests = parts["tests"]["result"]
    told = f"{tests['passed']} passed, {tests['skipped']} skipped, {len(tests['failed'])} failed"
    assert told in text
    aims = parts["kernels"]["result"]["aims"]
    reached = [f"{value:.2f}" for value, aim in aims.values() if value < aim]
    assert reached == ["0.55", "2.76"] and all(value in text for value in reached)


def test_the_readme_quotes_the_record(record: dict[str, Any]) -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    kernels = record["parts"]["kernels"]["result"]
    for kind, name in (ROWS[2], ROWS[6], ROWS[10]):
        ours, torch, ratio = figures(kernels[kind][name])
        assert f"| {ours} | {torch} | {ratio} |" in text, name
    assert "No TensorRT engine has run on a GPU" in text
