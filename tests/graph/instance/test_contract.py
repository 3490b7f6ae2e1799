"""The contract's promises about instance ops and open sizes, broken on purpose."""

from __future__ import annotations

from functools import cache

import onnx
import pytest
import torch
from torch import Tensor, nn

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import Expected, check_contract
from pointrend_deploy.graph.ops import pool, suppress
from pointrend_deploy.graph.trace import finish, trace
from tests.graph.test_contract import (
    Fault,
    by_ops,
    drop_attribute,
    first,
    refused,
    set_attribute,
)


class Selected(nn.Module):
    """Two of three boxes a group, and their features: both ops in one graph."""

    def forward(self, boxes: Tensor, scores: Tensor, feature: Tensor) -> tuple[Tensor, ...]:
        """Indices and count of the kept, and features of all boxes."""
        indices, count = suppress(boxes, scores, 2, 0.5, 0.1)
        return indices, count, pool(boxes[:, 0], [feature], 2, 5)


class Doubled(nn.Module):
    """Something whose leading size may be left open."""

    def forward(self, boxes: Tensor) -> Tensor:
        """Twice the boxes."""
        return boxes * 2.0


@cache
def exported(ops: str) -> tuple[bytes, Expected]:
    promised = Expected(
        inputs={
            "boxes": ("float32", (1, 2, 3, 4)),
            "scores": ("float32", (1, 2, 3)),
            "feature": ("float32", (1, 4, 8, 8)),
        },
        outputs={
            "indices": ("int64", (1, 2)),
            "count": ("int64", (1,)),
            "pooled": ("float32", (3, 4, 5, 5)),
        },
        ops=ops,  # type: ignore[arg-type]
    )
    inputs = tuple(torch.zeros([int(v) for v in shape]) for _, shape in promised.inputs.values())
    proto = trace(Selected(), inputs, list(promised.inputs), list(promised.outputs))
    return finish(proto, {}, promised).SerializeToString(), promised


def fresh(ops: str) -> tuple[onnx.ModelProto, Expected]:
    data, promised = exported(ops)
    return onnx.ModelProto.FromString(data), promised


def attribute(op: str, name: str, value: object) -> Fault:
    return lambda proto: set_attribute(first(proto, op), name, value)


def without(op: str, name: str) -> Fault:
    return lambda proto: drop_attribute(first(proto, op), name)


def one_output(proto: onnx.ModelProto) -> None:
    del first(proto, "PointRendNMS").output[1]


def one_map(proto: onnx.ModelProto) -> None:
    del first(proto, "PointRendRoIAlign").input[2:]


def no_bodies(proto: onnx.ModelProto) -> None:
    del proto.functions[:]


def fixed_k_in_the_body(proto: onnx.ModelProto) -> None:
    body = next(f for f in proto.functions if f.name == "PointRendNMS")
    topk = next(node for node in body.node if node.op_type == "TopK")
    topk.input[1] = "nowhere"


PLUGIN = [
    (attribute("PointRendNMS", "k", 3841), "k = 3841"),
    (attribute("PointRendNMS", "k", 0), "k = 0"),
    (attribute("PointRendNMS", "iou_threshold", 1.5), "iou_threshold = 1.5"),
    (attribute("PointRendNMS", "score_threshold", float("nan")), "score_threshold = nan"),
    (attribute("PointRendRoIAlign", "levels", 5), "levels = 5"),
    (attribute("PointRendRoIAlign", "side", 0), "side = 0"),
    (without("PointRendNMS", "k"), "lacks.*'k'"),
    (without("PointRendRoIAlign", "first_level"), "first_level"),
    (without("PointRendRoIAlign", "plugin_version"), "plugin_version"),
    (one_output, "fixed number"),
    (one_map, "fixed number"),
    (no_bodies, "no function body"),
    (fixed_k_in_the_body, "not a constant"),
]


def open_value(op: str) -> Fault:
    def plant(proto: onnx.ModelProto) -> None:
        name = first(proto, op).output[0]
        value = next(v for v in proto.graph.value_info if v.name == name)
        value.type.tensor_type.shape.dim[0].dim_param = "some"

    return plant


NATIVE = [
    (attribute("RoiAlign", "sampling_ratio", 17), "sampling_ratio=17"),
    (attribute("RoiAlign", "mode", "max"), "mode=max"),
    (
        attribute("RoiAlign", "coordinate_transformation_mode", "output_half_pixel"),
        "output_half_pixel",
    ),
    (attribute("NonMaxSuppression", "center_point_box", 1), "center_point_box=1"),
    (attribute("ScatterND", "reduction", "add"), "reduction=add"),
    (open_value("RoiAlign"), "fixed and positive"),
]


@pytest.mark.parametrize(("ops", "plant", "word"), by_ops(native=NATIVE, plugin=PLUGIN))
def test_a_fault_is_refused(ops: str, plant: Fault, word: str) -> None:
    refused(*fresh(ops), plant, word)


def test_sizes_that_depend_on_data_end_with_the_scatter() -> None:
    """They are there, in a native graph, and only between suppression and scatter."""
    proto, promised = fresh("native")
    check_contract(proto, promised)
    open_sizes = {
        value.name
        for value in proto.graph.value_info
        if any(not dim.dim_value for dim in value.type.tensor_type.shape.dim)
    }
    makers = {node.op_type for node in proto.graph.node if open_sizes.intersection(node.output)}
    assert makers == {"NonMaxSuppression", "Split", "Div", "Mul", "Sub", "Concat", "GatherND"}


def test_native_bodies_are_folded() -> None:
    """What the bodies read from attributes and shapes is constant in a native graph."""
    proto, _ = fresh("native")
    operators = [node.op_type for node in proto.graph.node]
    assert not {"Shape", "Range", "Pow", "Squeeze"} & set(operators)
    read = {name for node in proto.graph.node for name in node.input}
    for node in proto.graph.node:
        assert node.op_type != "Constant" or node.output[0] in read, node.name


def test_open_sizes_only_where_the_inputs_have_them() -> None:
    rows = torch.export.Dim("R", min=1, max=9)
    example = (torch.zeros(3, 4),)
    proto = trace(Doubled(), example, ["boxes"], ["twice"], 18, [{0: rows}])
    shape = ("float32", ("R", 4))
    promised = Expected(inputs={"boxes": shape}, outputs={"twice": shape})
    proto = finish(proto, {}, promised)
    fixed = Expected(inputs={"boxes": ("float32", (3, 4))}, outputs={"twice": shape})
    with pytest.raises(DeployError, match="not float32"):
        check_contract(proto, fixed)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    with pytest.raises(DeployError, match="fixed and positive"):
        check_contract(proto, fixed)
