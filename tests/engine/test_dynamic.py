"""The dynamic dimensions of a table of layers."""

from __future__ import annotations

from onnx import TensorProto, helper

from pointrend_deploy.engine.dynamic import with_sizes
from pointrend_deploy.engine.graphs import element_counts
from pointrend_deploy.engine.layers import Layer, Operand

R = 20
POINTS = 784


def layer(kind: str, inputs: list[Operand], outputs: list[Operand]) -> Layer:
    return Layer(f"a {kind}", kind, tuple(inputs), (), tuple(outputs), ("x",))


def tensor(name: str, *shape: int) -> Operand:
    return Operand("float16", shape, name)


def shapes(layers: tuple[Layer, ...]) -> list[tuple[int, ...]]:
    return [operand.shape for one in layers for operand in (*one.inputs, *one.outputs)]


def test_elements_of_the_values_of_a_graph() -> None:
    def value(name: str, *shape: int | str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph([], "g", [value("boxes", "R", 4)], [value("masks", "R", 224, 224)])
    graph.value_info.extend(
        [value("points", 1, "784*R", 2), value("odd", "R + 1", 2), value("one")]  # type: ignore[list-item]
    )
    assert element_counts(helper.make_model(graph), {"R": R}) == {
        "boxes": 4 * R,
        "masks": R * 224 * 224,
        "points": POINTS * R * 2,
        "one": 1,
    }


def test_a_value_of_the_graph_gives_its_views_their_sizes() -> None:
    table = [
        layer("kgen", [tensor("boxes", -1, 4)], [tensor("points.out.1_myl0", -1, POINTS, 2)]),
        layer("custom_layer", [tensor("points.out.1_myl0", 1, -1, 2)], [tensor("s", 1, 64, 9)]),
    ]
    elements = {"boxes": 4 * R, "points.out": POINTS * R * 2}
    assert shapes(with_sizes(table, elements, R)) == [
        (R, 4),
        (R, POINTS, 2),
        (1, POINTS * R, 2),
        (1, 64, 9),
    ]


def test_sizes_go_from_layer_to_layer_through_tensors_without_a_name_in_the_graph() -> None:
    table = [
        layer("gemm", [tensor("__mye1", -1, 8)], [tensor("__mye2", -1, 384)]),
        layer("runtime_fusion", [tensor("__mye2", -1, 128)], [tensor("__mye3", -1, 128)]),
        layer("kgen", [tensor("__mye3", -1, 128)], [tensor("relu.out.1_myl0", -1, 128)]),
        layer("kgen", [tensor("relu.out.1_myl0", -1, 128, POINTS)], []),
    ]
    rows = POINTS * R
    assert shapes(with_sizes(table, {"relu.out": 128 * rows}, R)) == [
        (rows, 8),
        (rows, 384),
        (rows, 128),
        (rows, 128),
        (rows, 128),
        (rows, 128),
        (R, 128, POINTS),
    ]


def test_what_nothing_tells_gets_the_least() -> None:
    table = [
        layer("kgen", [tensor("__mye1", -1, 8), tensor("", -1, 3)], [tensor("__mye2", -1, -1)]),
        layer("kgen", [tensor("odd.out_myl0", -1, 8)], [tensor("variant.out.1_49_myl0", -1, 8)]),
    ]
    elements = {"odd.out": 8 * R + 1, "variant.out": 8 * R * POINTS}
    found = with_sizes(table, elements, R)
    assert shapes(found) == [(R, 8), (R, 3), (R, R), (R, 8), (R, 8)]


def test_views_that_contradict_each_other_stay_open() -> None:
    table = [
        layer("kgen", [tensor("a.out_myl0", -1, 8)], [tensor("b.out_myl0", -1, 8)]),
        layer("kgen", [tensor("__mye1", -1, 8), tensor("b.out_myl0", -1, 8)], []),
        layer("kgen", [tensor("__mye1", -1, 8), tensor("a.out_myl0", -1, 8)], []),
    ]
    first, second, third = with_sizes(table, {"a.out": 16 * R, "b.out": 24 * R}, R)
    assert [o.shape[0] for o in (*first.inputs, *first.outputs)] == [2 * R, 3 * R]
    assert second.inputs[1].shape[0] == 3 * R
    assert third.inputs[1].shape[0] == 2 * R


def test_static_tables_stay_as_they_are() -> None:
    table = (layer("gemm", [tensor("a", 3, 4)], [tensor("b", 3, 5)]),)
    assert with_sizes(table, {}, 1) == table
