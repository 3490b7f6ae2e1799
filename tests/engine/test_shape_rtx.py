"""Layers and bytes of the demonstration models' engines, as TensorRT-RTX 1.7.1 builds them.

The builder gives the same layers on every machine without a GPU. A change of a graph that changes
them changes the numbers here: fewer are better. `python benchmarks/engine_shape.py --all` prints
the parts of the network that they are in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from benchmarks.engine_shape import MODELS, Model, measured
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.bundle.records import EngineShape
from pointrend_deploy.engine.shape import PARTS, REST
from tests.engine.rtx import built_library, rtx_needed

pytestmark = pytest.mark.slow

Shaper = Callable[[str, Precision], dict[str, EngineShape]]


@dataclass(frozen=True)
class Expected:
    """An engine's layers, plugins by op and reformats, and megabytes that it must not exceed."""

    layers: int
    plugins: dict[str, int]
    reformats: int
    most_mb: float


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rtx_needed()
    return built_library(tmp_path_factory)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where traced graphs are kept, so that each model is traced once."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture
def shaped(library: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> Shaper:
    """Builds a model of the benchmark in a precision; the shape of each engine by its graph."""
    monkeypatch.setenv("POINTREND_PLUGINS", str(library))

    def shape(name: str, precision: Precision) -> dict[str, EngineShape]:
        rows = measured(model_of(name), precision, "plugin", graphs)
        return {row["graph"]: msgspec.convert(row["shape"], EngineShape) for row in rows}

    return shape


def model_of(name: str) -> Model:
    return next(model for model in MODELS if model.name == name)


def check(shape: EngineShape, expected: Expected) -> None:
    """The shape is what is expected, and its parts are those of the whole, none in the rest."""
    found = (shape.layers, shape.plugins, shape.reformats)
    assert found == (expected.layers, expected.plugins, expected.reformats)
    assert shape.bytes <= expected.most_mb * 1e6
    for figure in ("layers", "reformats", "bytes"):
        assert sum(getattr(part, figure) for part in shape.parts.values()) == getattr(shape, figure)
    assert sum(part.plugins for part in shape.parts.values()) == sum(shape.plugins.values())
    assert set(shape.parts) <= set(PARTS)
    rest = shape.parts.get(REST)
    assert rest is None or rest.bytes < 0.01 * shape.bytes


REFINED = {
    "PointRendRefineLabels": 1,
    "PointRendRefineLogits": 2,
    "PointRendSampleCells": 4,
    "PointRendUncertain": 3,
    "PointRendUpsampleLabels": 1,
    "PointRendUpsampleUncertainty": 2,
}
SEMANTIC: dict[Precision, Expected] = {
    "fp32": Expected(85, REFINED, 13, 109),
    "fp16": Expected(85, REFINED, 13, 57),
}
MASKED = {
    "PointRendNMS": 2,
    "PointRendRoIAlign": 1,
    "PointRendSample": 1,
    "PointRendSampleRoIs": 4,
    "PointRendUncertain": 3,
}
INSTANCE: dict[Precision, Expected] = {
    "fp32": Expected(129, MASKED, 9, 350),
    "fp16": Expected(129, MASKED, 9, 196),
}


@pytest.mark.parametrize("precision", SEMANTIC)
def test_the_semantic_demonstration_model(shaped: Shaper, precision: Precision) -> None:
    shape = shaped("demo_semantic", precision)["model"]
    check(shape, SEMANTIC[precision])
    assert set(shape.parts) - {REST} == {"backbone", "semantic head", "subdivision"}
    assert shape.sizes == {}


@pytest.mark.parametrize("precision", INSTANCE)
def test_the_instance_demonstration_model(shaped: Shaper, precision: Precision) -> None:
    shape = shaped("demo_instance", precision)["model"]
    check(shape, INSTANCE[precision])
    assert set(shape.parts) - {REST} == {"backbone", "RPN and box head", "mask head"}


def test_masks_of_any_number_are_counted_for_the_most(shaped: Shaper) -> None:
    """A split layout's masks move about what the same masks of the single graph move."""
    split = shaped("demo_instance, split", "fp32")
    assert split["detector"].sizes == {}
    masks = split["masks"]
    assert masks.sizes == {"R": model_of("demo_instance, split").detections}
    assert set(masks.parts) - {REST} == {"mask head"}
    whole = shaped("demo_instance", "fp32")["model"].parts["mask head"].bytes
    assert 0.5 * whole < masks.bytes < 2 * whole
