"""The estimate of an export's time: what it counts, and how it is said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pointrend_deploy.model.instance.model import build_instance_model
from pointrend_deploy.model.semantic.model import build_model
from pointrend_deploy.verbs.export import duration
from pointrend_deploy.verbs.export.duration import backbone_flops, expected_seconds, in_words
from pointrend_deploy.verbs.export.options import ExportOptions
from tests.fixtures.instance_graphs import SMALL
from tests.fixtures.recipes import small_recipe


def test_flops_are_those_of_the_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    assert backbone_flops(net, (2, 3, 10, 12)) == 2 * 2 * 120 * (3 * 8 * 9 + 8 * 4)
    assert all(value.device.type == "cpu" for value in net.parameters())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with known probes."""
    monkeypatch.setattr(duration, "_python_probe", lambda: 0.1)
    monkeypatch.setattr(duration, "_flops_a_second", lambda: 1e9)


@pytest.mark.usefixtures("machine")
def test_runs_grow_with_the_picture_and_the_batch() -> None:
    recipe = small_recipe()
    model = build_model(recipe)
    tracing, whole = expected_seconds(model, recipe, ExportOptions((64, 96)))
    again, four = expected_seconds(model, recipe, ExportOptions((128, 192)))
    _, batch = expected_seconds(model, recipe, ExportOptions((64, 96), batch=4))
    assert again == tracing
    assert four - tracing == pytest.approx(4 * (whole - tracing))
    assert batch == four


@pytest.mark.usefixtures("machine")
def test_groups_of_rois_cost_tracing_without_plugins() -> None:
    model = build_instance_model(SMALL)
    plugin, _ = expected_seconds(model, SMALL, ExportOptions((64, 96)))
    four, _ = expected_seconds(model, SMALL, ExportOptions((64, 96), ops="native", detections=4))
    eight, _ = expected_seconds(model, SMALL, ExportOptions((64, 96), ops="native", detections=8))
    assert plugin < four < eight
    assert eight - four == pytest.approx(four - plugin)


def test_the_probes_are_of_this_machine() -> None:
    torch.set_num_threads(1)
    assert 0.005 < duration._python_probe() < 10
    assert 1e8 < duration._flops_a_second() < 1e13


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "10 s"), (20, "20 s"), (20.1, "30 s"), (94, "100 s"), (95, "2 min"), (121, "3 min")],
)
def test_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
