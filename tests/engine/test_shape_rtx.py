"""Layers and bytes of the demonstration models' engines, as TensorRT-RTX 1.7.1 builds them.

The builder gives the same layers on every machine without a GPU. A change of a graph that changes
them changes the numbers here: fewer are better. `python benchmarks/engine_shape.py --all` prints
the parts of the network that they are in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from pointrend_deploy.bundle.records import EngineShape
from pointrend_deploy.engine.build import Request, build_engine
from pointrend_deploy.engine.flavour import flavour_of
from pointrend_deploy.engine.plugin_library import load_library
from pointrend_deploy.engine.shape import PARTS, REST
from pointrend_deploy.engine.targets import Target
from pointrend_deploy.progress import Silent
from pointrend_deploy.quantize.fp16 import to_half
from tests.engine.rtx import built_library, rtx_needed
from tests.fixtures import shared
from tests.repository import ROOT

pytestmark = pytest.mark.slow

DETECTIONS = 20
Shaper = Callable[[Path, str], EngineShape]


@dataclass(frozen=True)
class Expected:
    """An engine's layers, plugins by op and reformats, and megabytes that it must not exceed."""

    layers: int
    plugins: dict[str, int]
    reformats: int
    most_mb: float


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Shaper:
    """Builds a graph of a bundle in a precision and counts it."""
    rtx_needed()
    library = load_library(built_library(tmp_path_factory))

    def shape(graph: Path, precision: str) -> EngineShape:
        folder = tmp_path_factory.mktemp("engine")
        if precision == "fp16":
            half = folder / graph.name
            onnx.save(to_half(onnx.load(graph)).model, half)
            graph = half
        target = Target(flavour_of("tensorrt_rtx"), 86)
        sizes = {"R": (1, DETECTIONS, DETECTIONS)}
        request = Request(graph, "model", target, precision, "plugin", 1024, sizes, library)  # type: ignore[arg-type]
        return build_engine(request, folder, Silent()).shape

    return shape


def bundle(name: str, **options: Any) -> Path:
    weights = ROOT / "demo" / f"{name}.safetensors"
    return shared.bundle(ROOT / "export" / f"{name}.toml", weights, **options)


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


SEMANTIC = {
    "fp32": Expected(0, {}, 0, 0),
    "fp16": Expected(0, {}, 0, 0),
}
INSTANCE = {
    "fp32": Expected(0, {}, 0, 0),
    "fp16": Expected(0, {}, 0, 0),
}


@pytest.mark.parametrize("precision", SEMANTIC)
def test_the_semantic_demonstration_model(shaped: Shaper, precision: str) -> None:
    graph = bundle("demo_semantic", size_hw=(256, 256)) / "model.onnx"
    shape = shaped(graph, precision)
    check(shape, SEMANTIC[precision])
    assert set(shape.parts) - {REST} == {"backbone", "semantic head", "subdivision"}
    assert shape.sizes == {}


@pytest.mark.parametrize("precision", INSTANCE)
def test_the_instance_demonstration_model(shaped: Shaper, precision: str) -> None:
    graph = bundle("demo_instance", size_hw=(256, 256)) / "model.onnx"
    shape = shaped(graph, precision)
    check(shape, INSTANCE[precision])
    assert set(shape.parts) - {REST} == {"backbone", "RPN and box head", "mask head"}


def test_masks_of_any_number_are_counted_for_the_most(shaped: Shaper) -> None:
    """A split layout's masks move about what the same masks of the single graph move."""
    split = bundle("demo_instance", size_hw=(256, 256), layout="split")
    masks = shaped(split / "masks.onnx", "fp32")
    assert masks.sizes == {"R": DETECTIONS}
    assert set(masks.parts) - {REST} == {"mask head"}
    single = shaped(bundle("demo_instance", size_hw=(256, 256)) / "model.onnx", "fp32")
    whole = single.parts["mask head"].bytes
    assert 0.5 * whole < masks.bytes < 2 * whole
