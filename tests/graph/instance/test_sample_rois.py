"""PointRendSampleRoIs: the eager op is its definition; the body in ONNX Runtime is the op."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import Tensor

from pointrend_deploy.graph.instance.sample_rois import sample_rois, sample_rois_body
from pointrend_deploy.graph.ops import SAMPLE_ROIS
from pointrend_deploy.model.pointrend import point_sample
from pointrend_deploy.quantize.values import FLOATS
from tests.graph.instance.test_bodies import run_nodes

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def inputs(
    pictures: int = 2,
    rois: int = 6,
    hw: tuple[int, int] = (9, 12),
    channels: int = 5,
    side: int = 7,
    own: int = 8,
    count: int = 40,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """Boxes partly and wholly off the map; points in them, some on their borders."""
    generator = torch.Generator().manual_seed(rois)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype)

    corner = uniform(rois, 2) * 1.4 - 0.4
    boxes = torch.cat((corner, corner + uniform(rois, 2)), dim=1)
    boxes[0] = torch.tensor([2.0, -3.0, 2.5, -2.0])
    points = uniform(rois, count, 2)
    points[-1, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 1.0]])
    table, cells = normal(pictures, *hw, channels), normal(rois, side, side, own)
    return table, cells, normal(channels), boxes, points


def defined(table: Tensor, cells: Tensor, bias: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
    """One RoI after another, in the order of the definition."""
    hidden, each, found = table.shape[3], len(boxes) // len(table), []
    for roi, (box, at) in enumerate(zip(boxes, points, strict=True)):
        picture = table[roi // each].permute(2, 0, 1).unsqueeze(0)
        own = point_sample(cells[roi].permute(2, 0, 1).unsqueeze(0), at.unsqueeze(0))[0].t()
        on_map = box[:2] + at * (box[2:] - box[:2])
        fine = point_sample(picture, on_map.unsqueeze(0))[0].t()
        first = (own[:, :hidden] + fine + bias).clamp(min=0.0)
        found.append(torch.cat((first, own[:, hidden:]), dim=1))
    return torch.stack(found)


@pytest.mark.parametrize(("pictures", "rois", "own"), [(1, 3, 8), (2, 6, 8), (3, 3, 5)])
def test_the_eager_op_is_the_definition(pictures: int, rois: int, own: int) -> None:
    given = inputs(pictures, rois, own=own, dtype=torch.float64)
    found = sample_rois(*given)
    assert found.shape == (rois, 40, own)
    assert float((found - defined(*given)).abs().max()) < 1e-12
    assert float((found - found.roll(1, dims=0)).abs().max()) > 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pictures": 1, "rois": 1},
        {"own": 5},
        {"hw": (1, 12), "side": 1},
        {"hw": (5, 1), "side": 2, "pictures": 3},
    ],
)
def test_the_body_is_the_op(changes: dict[str, int]) -> None:
    """Maps and cells of one row or column too: their only cell has no neighbour."""
    given = inputs(**changes)  # type: ignore[arg-type]
    ((found,),) = run_nodes(SAMPLE_ROIS, sample_rois_body(), list(given), 1, {})
    wanted = sample_rois(*given)
    assert found.shape == tuple(wanted.shape)
    # Coordinates are rounded in another order: a step of FP32 of 12 cells, times values of 4.
    assert float((torch.from_numpy(found) - wanted).abs().max()) < 2e-5


def test_a_shift_of_half_a_cell_is_noticed() -> None:
    table, cells, bias, boxes, points = inputs()
    given = [table, cells, bias, boxes, (points + 0.5 / 7).clamp(0.0, 1.0)]
    ((found,),) = run_nodes(SAMPLE_ROIS, sample_rois_body(), given, 1, {})
    wanted = sample_rois(table, cells, bias, boxes, points)
    assert float((torch.from_numpy(found) - wanted).abs().max()) > 0.1


def test_the_body_samples_in_fp32_whatever_the_features_are() -> None:
    """Values are cast before anything is multiplied, and the sum is rounded once, at the end."""
    nodes = sample_rois_body().node
    casts = {node.input[0] for node in nodes if node.op_type == "Cast"}
    assert {"table", "cells_rows", "bias"} <= casts
    assert nodes[-1].op_type == "CastLike" and list(nodes[-1].input)[1] == "table"
    kinds = [a.i for n in nodes if n.op_type == "Cast" for a in n.attribute if a.i in FLOATS]
    assert kinds and set(kinds) == {onnx.TensorProto.FLOAT}
