"""The rule of INT8 placement, on graphs with the real names."""

from __future__ import annotations

from pointrend_deploy.quantize.layers import weighted_layers
from pointrend_deploy.quantize.placement import (
    ASKED,
    CANNOT,
    POINT_HEAD,
    PREDICTOR,
    observable,
    place,
    shortcuts,
)
from tests.fixtures.small_graphs import (
    Graph,
    instance_heads,
    residual_pyramid,
    shared_levels,
    standard_mask_head,
)

BODY = "backbone.bottom_up"
COARSE = "sem_seg_head.coarse_sem_seg_head"


def test_what_is_meant_is_placed_and_the_rest_has_its_reason() -> None:
    placement = place(residual_pyramid())
    assert placement.left_out == {
        f"{COARSE}.predictor": PREDICTOR,
        "sem_seg_head.point_head": POINT_HEAD,
        "sem_seg_head.point_head.step0": POINT_HEAD,
    }
    assert len(placement.int8) == 11
    assert placement.flops_share == 1


def test_edges_are_inputs_of_layers_and_shortcuts_and_nothing_else() -> None:
    edges = {(node, value) for node, _, value in place(residual_pyramid()).edges}
    layers = set(place(residual_pyramid()).int8)
    assert {edge for edge in edges if edge[0] not in layers} == {
        (f"{BODY}.res2.0.add", f"{BODY}.res2.0.shortcut.out"),
        (f"{BODY}.res2.1.add", f"{BODY}.res2.0.add.relu.out"),
    }  # no pyramid addition, no max pooling, no resize
    assert (f"{BODY}.stem.conv1", "image") in edges
    assert (f"{BODY}.res2.0.conv1", f"{BODY}.stem.maxpool.out") in edges
    assert ("backbone.fpn_output2", "backbone.add.out") in edges
    assert len(edges) == len(layers) + 2


def test_the_fused_side_is_the_deeper_one_in_either_order() -> None:
    model = residual_pyramid()
    found = shortcuts(model, weighted_layers(model))
    assert found == {
        f"{BODY}.res2.0.conv2": (f"{BODY}.res2.0.add", 1),
        f"{BODY}.res2.1.conv2": (f"{BODY}.res2.1.add", 0),
    }


def test_a_layer_read_elsewhere_too_is_not_fused_with_the_addition() -> None:
    g = Graph(image=(1, 4, 8, 8))
    x = g.conv(f"{BODY}.res2.0.conv1", "image", 4, 4, 3, 3)
    added = g.node("Add", f"{BODY}.res2.0.add", x, "image")
    model = g.model(added, g.relu(x))
    assert shortcuts(model, weighted_layers(model)) == {}
    g = Graph(image=(1, 4, 8, 8))
    x = g.conv(f"{BODY}.res2.0.conv1", "image", 4, 4, 3, 3)
    model = g.model(g.node("Add", f"{BODY}.res2.0.add", x, "image"), x)  # an output of the graph
    assert shortcuts(model, weighted_layers(model)) == {}


def test_what_is_kept_loses_its_own_edges_alone() -> None:
    model = residual_pyramid()
    kept = place(model, keep=[f"{BODY}.res2.1.conv2", "sem_seg_head.point_head"])
    assert kept.left_out[f"{BODY}.res2.1.conv2"] == ASKED
    gone = set(place(model).edges) - set(kept.edges)
    assert {node for node, _, _ in gone} == {f"{BODY}.res2.1.conv2", f"{BODY}.res2.1.add"}
    assert set(kept.edges) < set(place(model).edges)
    flops = {layer.name: layer.flops for layer in weighted_layers(model)}
    meant = sum(flops[name] for name in place(model).int8)
    assert kept.flops_share == 1 - flops[f"{BODY}.res2.1.conv2"] / meant
    assert kept.meant_flops == meant


def test_predictors_and_point_heads_are_put_in_on_request() -> None:
    placement = place(residual_pyramid(), also=[f"{COARSE}.predictor", "sem_seg_head.point_head"])
    assert set(placement.left_out) == {"sem_seg_head.point_head.step0"}
    assert placement.flops_share == 1  # a share of what is meant, not more


def test_what_cannot_be_int8_is_not_whatever_is_asked() -> None:
    head = "roi_heads.mask_head.point_head"
    placement = place(instance_heads(), also=[head, f"{head}.matmul_2"])
    assert head in placement.int8
    assert placement.left_out[f"{head}.matmul_2"].startswith(CANNOT)
    assert "roi_heads.mask_head.matmul" not in placement.left_out  # no weights at all
    standard = place(standard_mask_head(), also=["roi_heads.mask_head.deconv"])
    assert standard.int8 == ("roi_heads.mask_head.mask_fcn1",)
    assert "ConvTranspose" in standard.left_out["roi_heads.mask_head.deconv"]
    assert standard.flops_share == 1


def test_observable_covers_every_placement_once_and_in_order() -> None:
    for model in (residual_pyramid(), shared_levels(), instance_heads(), standard_mask_head()):
        everything = [layer.name for layer in weighted_layers(model)]
        edges = place(model, also=everything).edges
        assert observable(model) == tuple(dict.fromkeys(value for _, _, value in edges))
        nodes = [node.name for node in model.graph.node]
        positions = [nodes.index(node) for node, _, _ in edges]
        assert positions == sorted(positions)
    values = observable(residual_pyramid())
    assert values[:2] == ("image", f"{BODY}.stem.maxpool.out")
    assert "sem_seg_head.point_head.relu.out" in values
