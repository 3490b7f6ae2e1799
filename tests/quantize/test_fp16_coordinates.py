"""Points are where they should be, in every precision, at the sizes where FP16 would move them.

Coordinates in FP16 are up to 0.75 pixels wrong at 1280 wide; maps whose sides are powers of two
hide it. The points are read out of the graphs and held against cell centres in float64.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from pointrend_deploy.graph.contract import Expected
from pointrend_deploy.graph.cost import ProjectionPlan
from pointrend_deploy.graph.instance.export import MasksGraph
from pointrend_deploy.graph.instance.export import _names as instance_names
from pointrend_deploy.graph.semantic.traceable import Subdivision
from pointrend_deploy.graph.trace import finish, trace
from pointrend_deploy.model.pointrend import StandardPointHead
from pointrend_deploy.onnx_session import open_session
from pointrend_deploy.quantize.check import check_islands
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import observable, place
from pointrend_deploy.quantize.qdq import insert
from pointrend_deploy.quantize.values import Values
from pointrend_deploy.recipe.parts import PointHeadSpec
from tests.fixtures.deciding_graphs import POINTS, picture, step
from tests.fixtures.instance_graphs import SMALL, made, options
from tests.quantize.test_islands import half_and_back

Array = NDArray[Any]
HW = tuple[int, int]
Precision = Literal["fp32", "fp16", "int8", "int8-fp32"]

SIZES: tuple[HW, ...] = ((720, 1280), (800, 1344))
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8-fp32")
LIMIT_PX = 0.01
POINTS_OF = {"PointRendSample": 1, "PointRendSampleRoIs": 4}
"""By sampler, the input with the points."""


def in_precision(model: ModelProto, precision: Precision, inputs: dict[str, Array]) -> ModelProto:
    """The graph in a precision; its ranges for INT8 are those of ``inputs``."""
    if precision == "fp32":
        return model
    half = to_half(model).model
    if precision == "fp16":
        return half
    placement = place(model)
    assert placement.int8
    ranges = {
        name: float(abs(value).max())
        for name, value in read(model, observable(model), inputs).items()
    }
    if precision == "int8-fp32":
        return insert(model, placement, ranges)
    return insert(half, placement, ranges, weights_from=model)


def read(model: ModelProto, names: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
    """Values of a graph in ONNX Runtime."""
    given = {name: inputs[name] for name in names if name in inputs}
    marked, has = ModelProto(), {output.name for output in model.graph.output}
    marked.CopyFrom(model)
    described = {value.name: value for value in model.graph.value_info}
    wanted = [name for name in names if name not in given]
    marked.graph.output.extend(described[name] for name in wanted if name not in has)
    session = open_session(marked.SerializeToString(), threads=1)
    return given | dict(zip(wanted, session.run(wanted, inputs), strict=True))


def sampled_points(model: ModelProto) -> dict[str, str]:
    """Points of every sampler that come from chosen indices -> the value of those indices."""
    values, found = Values(model), {}
    for node in model.graph.node:
        if node.op_type not in POINTS_OF:
            continue
        points = node.input[POINTS_OF[node.op_type]]
        pending, chosen = [points], set()
        while pending:
            name = pending.pop()
            maker = values.makers.get(name)
            if maker is not None and maker.op_type == "PointRendUncertain":
                chosen.add(name)
            elif maker is not None:
                pending += maker.input
        if chosen:
            (found[points],) = chosen
    return found


def pixel_error(points: Array, indices: Array, grid: HW, canvas: HW) -> float:
    """How far points (N, K, 2) are from the centres of their cells, in pixels, at most."""
    rows, columns = np.divmod(indices.astype(np.float64), grid[1])
    right = np.stack([(columns + 0.5) / grid[1], (rows + 0.5) / grid[0]], axis=-1)
    return apart(points, right * [canvas[1], canvas[0]], canvas)


@pytest.mark.parametrize("hw", SIZES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_points_of_a_step_in_every_precision(hw: HW, precision: Precision) -> None:
    inputs = {"image": picture(hw)}
    graph = in_precision(step(hw, 4000), precision, inputs)
    check_islands(graph)
    names = (POINTS, "step0.uncertain.out", "step0.neg.out")
    found = read(graph, names, inputs)
    assert found[POINTS].dtype == found["step0.neg.out"].dtype == np.float32
    assert pixel_error(found[POINTS], found["step0.uncertain.out"], hw, hw) < LIMIT_PX


@pytest.mark.parametrize("hw", SIZES)
def test_coordinates_in_fp16_would_be_seen(hw: HW) -> None:
    inputs = {"image": picture(hw)}
    graph = to_half(step(hw, 4000)).model
    half_and_back(graph, POINTS)
    found = read(graph, (f"{POINTS}.planted1", "step0.uncertain.out"), inputs)
    error = pixel_error(found[f"{POINTS}.planted1"], found["step0.uncertain.out"], hw, hw)
    assert 0.2 < error < 1.0


def test_a_grid_of_powers_of_two_would_hide_it() -> None:
    hw = (256, 512)
    graph = to_half(step(hw, 500)).model
    half_and_back(graph, POINTS)
    found = read(graph, (f"{POINTS}.planted1", "step0.uncertain.out"), {"image": picture(hw)})
    assert pixel_error(found[f"{POINTS}.planted1"], found["step0.uncertain.out"], hw, hw) == 0.0


class Steps(nn.Module):
    """Real subdivision steps over a map made by one convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        head = StandardPointHead(PointHeadSpec(fc_dim=6, num_fc=2), 4, 3).requires_grad_(False)
        self.stem = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
        self.coarse = nn.Conv2d(4, 3, 1).requires_grad_(False)
        plan = ProjectionPlan(fine=(True,), coarse=True)
        self.subdivision = Subdivision(head, 2, 3000, [4], plan, labels_only=True)

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, H/4, W/4) -> labels (1, H, W)."""
        p2 = F.relu(self.stem(image))
        return self.subdivision(self.coarse(p2), [p2])["labels"].to(torch.uint8)


MODULES = {
    "stem": "backbone.bottom_up.stem.conv1",
    "coarse": "sem_seg_head.coarse_sem_seg_head.predictor",
}


@cache
def steps(hw: HW) -> ModelProto:
    """The exported graph of :class:`Steps`."""
    small = (1, 3, hw[0] // 4, hw[1] // 4)
    proto = trace(Steps().eval(), (torch.zeros(small),), ["image"], ["labels"])
    promised = Expected(
        inputs={"image": ("float32", small)}, outputs={"labels": ("uint8", (1, *hw))}
    )
    return finish(proto, MODULES, promised)


@pytest.mark.parametrize("hw", SIZES)
def test_points_of_exported_steps_in_every_precision(hw: HW) -> None:
    image = np.random.default_rng(1).normal(size=(1, 3, hw[0] // 4, hw[1] // 4))
    inputs = {"image": image.astype(np.float32)}
    for precision in PRECISIONS:
        graph = in_precision(steps(hw), precision, inputs)
        check_islands(graph)
        points = sampled_points(graph)
        assert len(points) == 2
        for number, (name, indices) in enumerate(points.items(), 1):
            found = read(graph, (name, indices), inputs)
            grid = hw[0] * number // 2, hw[1] * number // 2
            error = pixel_error(found[name], found[indices], grid, hw)
            assert error < LIMIT_PX, (precision, name)


@pytest.mark.parametrize("hw", [(736, 1280), (800, 1344)])
def test_points_in_boxes_in_every_precision(hw: HW) -> None:
    graph, inputs = boxed(hw)
    boxes = inputs["boxes"].astype(np.float64)[:, None]
    for precision in PRECISIONS:
        chosen = in_precision(graph, precision, inputs)
        check_islands(chosen)
        points = sampled_points(chosen)
        boxes_of = {
            node.input[4]: node.input[3]
            for node in chosen.graph.node
            if node.op_type == "PointRendSampleRoIs"
        }
        names = dict.fromkeys((*points, *points.values(), *boxes_of.values()))
        found = read(chosen, tuple(names), inputs)
        assert len(points) == 2
        for side, (name, indices) in zip((28, 56), points.items(), strict=True):
            rows, columns = np.divmod(found[indices].astype(np.float64), side)
            inside = np.stack([(columns + 0.5) / side, (rows + 0.5) / side], axis=-1)
            right = boxes[..., :2] + inside * (boxes[..., 2:] - boxes[..., :2])
            low, high = np.split(found[boxes_of[name]][:, None], 2, axis=2)
            ours = low + found[name] * (high - low)
            assert ours.dtype == np.float32
            assert apart(ours, right, hw) < LIMIT_PX, (precision, name)
            assert apart(ours.astype(np.float16), right, hw) > 0.1


def apart(points: Array, pixels: Array, hw: HW) -> float:
    """How far points in [0, 1] of a grid are from where they should be in it, at most."""
    return float(np.abs(points.astype(np.float64) * [hw[1], hw[0]] - pixels).max())


def boxed(hw: HW) -> tuple[ModelProto, dict[str, Array]]:
    """The exported mask graph of a tiny model for three boxes, and inputs."""
    chosen = options(padded_hw=hw, layout="split")
    model = made(SMALL, options())
    wrapper = MasksGraph(model, chosen).eval()
    inputs = {
        "boxes": np.array([[3.3, 7.1, 200.7, 411.9], [700, 99, 1279, 731], BOX_OF_FEW], np.float32),
        "classes": np.array([0, 2, 1]),
        "p2": np.random.default_rng(5).normal(size=(1, 8, hw[0] // 4, hw[1] // 4)),
    }
    inputs["p2"] = inputs["p2"].astype(np.float32)
    examples = tuple(torch.from_numpy(value) for value in inputs.values())
    proto = trace(wrapper, examples, list(inputs), list(wrapper.names))
    side = model.recipe.mask_side
    promised = Expected(
        inputs={name: (str(value.dtype), value.shape) for name, value in inputs.items()},
        outputs={"masks": ("float32", (3, side, side))},
    )
    return finish(proto, instance_names(wrapper, model), promised), inputs


BOX_OF_FEW = (90.0, 90.0, 103.7, 96.2)
