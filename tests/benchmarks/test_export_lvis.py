"""The benchmark program with its parts small: every step is measured, and the heads are swapped."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.export_lvis import LVIS, measure, recipe_for, table
from pointrend_deploy.recipe.instance import CoarseMaskHeadSpec
from tests.fixtures.instance_graphs import SMALL_STANDARD


def test_steps_are_measured() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory is read from /proc, which only Linux has")
    box_head = msgspec.structs.replace(SMALL_STANDARD.box_head, score_threshold=0.0, detections=50)
    result = measure(msgspec.structs.replace(SMALL_STANDARD, box_head=box_head), (64, 96))
    names = [step["step"].partition(" (")[0] for step in result["steps"]]
    assert names[:2] == ["1/7 reading weights", "2/7 tracing and optimising the graph"]
    assert all(step["peak_bytes"] > 50e6 and step["seconds"] > 0 for step in result["steps"])
    assert sum(step["seconds"] for step in result["steps"]) <= result["seconds"]
    assert "tracing and optimising the graph" in table(result)


def test_a_pointrend_model_for_lvis() -> None:
    recipe = recipe_for(LVIS, "pointrend", 200)
    assert isinstance(recipe.mask_head, CoarseMaskHeadSpec)
    assert recipe.num_classes == 1203 and recipe.box_head.detections == 200
    assert recipe_for(LVIS, "standard", None).box_head.detections == 300
