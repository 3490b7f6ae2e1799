"""Exported instance graphs in ONNX Runtime against the reference: detections, masks, layouts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import check_contract
from pointrend_deploy.graph.instance.export import export_instance_graphs
from pointrend_deploy.graph.instance.specs import InstanceGraphOptions, instance_expected
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.quantize.islands import node_types
from pointrend_deploy.recipe.instance import InstanceRecipe
from tests.fixtures.instance_graphs import (
    GRID,
    SIZES,
    SMALL,
    SMALL_STANDARD,
    Arrays,
    answer,
    canvas,
    exported,
    graph,
    in_order,
    made,
    options,
    referred,
    same,
    split_answer,
)
from tests.fixtures.tiny_instance import STANDARD, changed, model, picture
from tests.repository import ROOT

CLOSE = 2e-4
"""FP32 against FP32: pixels of boxes, scores, mask logits."""

SINGLE = options(masks="logits", stages=True)
BATCH = options(masks="prob-u8", batch=2, ops="native", preprocess="in-graph")
SPLIT = options(masks="logits", layout="split")
NATIVE_SPLIT = options(masks="logits", layout="split", ops="native")


def compare(recipe: InstanceRecipe, chosen: InstanceGraphOptions, *sizes: tuple[int, int]) -> int:
    """Pictures of those sizes, one call each; the number of detections of all."""
    reference, total = made(recipe, chosen), 0
    for seed, size in enumerate(sizes):
        image, extent = canvas(reference, [picture(*size, seed)])
        run = split_answer if chosen.layout == "split" else answer
        found = run(recipe, chosen, image=image, extent=extent)
        total += sum(same(found, referred(reference, image, extent), CLOSE))
    return total


def test_single_graph_on_pictures_of_several_sizes() -> None:
    """Some with more detections than rows, some with fewer."""
    assert 8 < compare(SMALL, SINGLE, *SIZES) < 8 * len(SIZES)


def test_stages_are_the_reference_s() -> None:
    reference = made(SMALL, SINGLE)
    image, extent = canvas(reference, [picture(*SIZES[1])])
    found = answer(SMALL, SINGLE, image=image, extent=extent)
    (wanted,) = referred(reference, image, extent)
    assert list(found) == list(instance_expected(SMALL, SINGLE)["model"].outputs)
    count = int(found["proposal_count"][0])
    assert count == len(wanted["proposals"])
    # Objectness logits of neighbours are 1e-5 apart, so rows may change places on another CPU.
    ours, theirs = found["proposals"][0, :count, None], wanted["proposals"].numpy()[None]
    pairs = np.abs(ours - theirs).max(axis=2) < CLOSE
    assert (pairs.sum(axis=0) == 1).all() and (pairs.sum(axis=1) == 1).all()
    for name in ("p2", "p3", "p4", "p5"):
        assert np.abs(found[name] - wanted[name].numpy()).max() < 1e-5, name
    for name in ("coarse", "step0.point_logits"):
        assert np.abs(found[name][0] - wanted[name].numpy()).max() < CLOSE, name
    for step in (1, 2):
        sets = zip(found[f"step{step}.indices"][0], wanted[f"step{step}.indices"], strict=True)
        for ours, theirs in sets:
            assert len(set(ours.tolist()) & set(theirs.tolist())) >= 0.98 * 196


def edited(reference: InstanceModel) -> Arrays:
    """What the single graph gives for one picture with the reference's biases in it."""
    proto = graph(SMALL, SINGLE, "model")
    biases = {name: p for name, p in reference.named_parameters() if name.endswith("bias")}
    seen = 0
    for tensor in proto.graph.initializer:
        if tensor.name in biases:
            tensor.raw_data = biases[tensor.name].numpy().tobytes()
            seen += 1
    assert seen > 10
    running = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    image, extent = canvas(reference, [picture(*SIZES[0])])
    outputs = [output.name for output in running.get_outputs()]
    found = running.run(None, {"image": image.numpy(), "extent": extent.numpy()})
    return dict(zip(outputs, found, strict=True))


def test_no_detection() -> None:
    """Background is surer than any class."""
    reference = made(SMALL, SINGLE)
    reference.roi_heads.box_predictor.cls_score.bias[-1] += 1000.0
    wanted = referred(reference, *canvas(reference, [picture(*SIZES[0])]))
    assert same(edited(reference), wanted, CLOSE) == [0]


def test_values_that_are_not_finite_are_dropped() -> None:
    """Anchors of one ratio with NaN for a score, and of another with an infinite width."""
    reference = made(SMALL, SINGLE)
    image, extent = canvas(reference, [picture(*SIZES[0])])
    (before,) = referred(reference, image, extent)
    head = reference.proposal_generator.rpn_head
    assert head.objectness_logits.bias is not None and head.anchor_deltas.bias is not None
    head.objectness_logits.bias[1] = float("nan")
    head.anchor_deltas.bias[8] = float("inf")
    wanted = referred(reference, image, extent)
    assert len(wanted[0]["proposals"]) != len(before["proposals"])
    found = edited(reference)
    assert same(found, wanted, CLOSE) != [0]
    assert int(found["proposal_count"][0]) == len(wanted[0]["proposals"])


def test_batch_of_two_native_whole_number_masks() -> None:
    """Pictures of different extents, with pixels beside them that must not count."""
    reference = made(SMALL, BATCH)
    pictures = [picture(*size, seed) for seed, size in enumerate(SIZES[:2])]
    pixels = np.random.default_rng(0).integers(0, 256, (2, *GRID, 3), dtype=np.uint8)
    for canvas_pixels, each in zip(pixels, pictures, strict=True):
        canvas_pixels[: each.shape[0], : each.shape[1]] = each
    image, extent = canvas(reference, pictures)
    found = answer(SMALL, BATCH, image=torch.from_numpy(pixels), extent=extent)
    assert found["masks"].dtype == np.uint8
    for n, each in enumerate(referred(reference, image, extent)):
        count = int(found["num_detections"][n])
        assert count == len(each["boxes"]) > 0
        rows = in_order(found, n, each, CLOSE)
        wanted = 255 * each["mask_logits"][rows, 0].sigmoid().numpy()
        assert (np.abs(found["masks"][n, :count] - wanted) > 0.51).mean() < 1e-3


@pytest.mark.parametrize(
    ("recipe", "chosen"),
    [(SMALL, SPLIT), (SMALL_STANDARD, NATIVE_SPLIT)],
    ids=["pointrend", "standard native"],
)
def test_split_layout(recipe: InstanceRecipe, chosen: InstanceGraphOptions) -> None:
    assert compare(recipe, chosen, *SIZES[1:3]) > 8


def test_split_gives_what_single_gives() -> None:
    reference = made(SMALL, SINGLE)
    image, extent = canvas(reference, [picture(*SIZES[2])])
    one = answer(SMALL, SINGLE, image=image, extent=extent)
    two = split_answer(SMALL, SPLIT, image=image, extent=extent)
    for name in ("num_detections", "boxes", "scores", "classes"):
        assert np.array_equal(one[name], two[name]), name
    assert (np.abs(one["masks"] - two["masks"]) > CLOSE).mean() < 1e-3


@pytest.mark.parametrize(
    ("recipe", "chosen"),
    [(SMALL, SPLIT), (SMALL_STANDARD, NATIVE_SPLIT)],
    ids=["points", "standard"],
)
@pytest.mark.parametrize("rois", [1, 2, 8])
def test_masks_of_any_number_of_rois(
    recipe: InstanceRecipe, chosen: InstanceGraphOptions, rois: int
) -> None:
    reference = made(recipe, chosen)
    image, extent = canvas(reference, [picture(*SIZES[0])])
    (wanted,) = referred(reference, image, extent)
    names = list(instance_expected(recipe, chosen)["masks"].inputs)
    feed = {name: wanted[name] for name in names[2:]}
    feed |= {name: wanted[name][:rois] for name in names[:2]}
    found = answer(recipe, chosen, "masks", **feed)["masks"]
    assert found.shape == (rois, recipe.mask_side, recipe.mask_side)
    apart = np.abs(found - wanted["mask_logits"][:rois, 0].numpy())
    assert (apart > CLOSE).mean() < 1e-3


def test_comparison_notices_planted_errors() -> None:
    reference = made(SMALL, SINGLE)
    image, extent = canvas(reference, [picture(*SIZES[0])])
    wanted = referred(reference, image, extent)
    found = answer(SMALL, SINGLE, image=image, extent=extent)
    for name, amount in (("boxes", 1e-3), ("scores", 1e-3), ("classes", 1), ("masks", 1e-2)):
        broken = {**found, name: found[name] + np.asarray(amount, found[name].dtype)}
        with pytest.raises(AssertionError):
            same(broken, wanted, CLOSE)
    with pytest.raises(AssertionError):
        same({**found, "num_detections": found["num_detections"] - 1}, wanted, CLOSE)


def test_names_are_the_checkpoint_s() -> None:
    proto = graph(SMALL, SINGLE, "model")
    nodes = {node.name: node for node in proto.graph.node}
    assert len(nodes) == len(proto.graph.node)
    for name in (
        "backbone.fpn_lateral2",
        "proposal_generator.rpn_head.conv.p2",
        "proposal_generator.rpn_head.objectness_logits.p5",
        "roi_heads.box_head.fc1",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.mask_head.coarse_head.reduce_spatial_dim_conv",
        "roi_heads.mask_head.coarse_head.fc1",
    ):
        assert name in nodes, sorted(nodes)
    parameters = {name for name, _ in made(SMALL, SINGLE).named_parameters()}
    layers = [node for node in nodes.values() if node.op_type in ("Conv", "Gemm")]
    weights = {node.input[1] for node in layers}
    # The point head's layers hold parts of its weights, cut apart.
    cut = {name for name in weights if name.startswith("roi_heads.mask_head.point_head.")}
    assert weights - cut <= parameters
    standard = graph(SMALL_STANDARD, NATIVE_SPLIT, "masks")
    assert {"roi_heads.mask_head.mask_fcn1", "roi_heads.mask_head.deconv"} <= {
        node.name for node in standard.graph.node
    }


@pytest.mark.parametrize(
    ("recipe", "chosen"),
    [(SMALL, SINGLE), (SMALL, BATCH), (SMALL, SPLIT), (SMALL_STANDARD, NATIVE_SPLIT)],
)
def test_files_are_sound(recipe: InstanceRecipe, chosen: InstanceGraphOptions) -> None:
    """ONNX's own checker and the contract, read again from bytes; sizes open only where said."""
    for name, promised in instance_expected(recipe, chosen).items():
        proto = graph(recipe, chosen, name)
        onnx.checker.check_model(proto)
        check_contract(proto, promised)
        custom = {node.op_type for node in proto.graph.node if node.domain}
        assert {function.name for function in proto.functions} == custom
        assert bool(custom) == (chosen.ops == "plugin")
        open_sizes = {
            value.name
            for value in [*proto.graph.input, *proto.graph.output]
            if any(dim.dim_param for dim in value.type.tensor_type.shape.dim)
        }
        assert open_sizes == ({"boxes", "classes", "masks"} if name == "masks" else set())


def test_stages_are_inner_values_by_name() -> None:
    promised = instance_expected(SMALL, SINGLE)["model"].outputs
    values = {value.name for value in graph(SMALL, SPLIT, "detector").graph.value_info}
    values |= {value.name for value in graph(SMALL, SPLIT, "masks").graph.value_info}
    ends = {"num_detections", "boxes", "scores", "classes", "masks", "p2"}
    # With logits asked for, the masks of a split layout are the logits.
    assert set(promised) - ends - {"mask_logits"} - {"p5"} <= values


def test_twice_the_same_bytes_and_nothing_of_this_machine(tmp_path: Path) -> None:
    """A second process with another hash seed writes the same files."""
    program = (
        "import sys; from pathlib import Path; from tests.fixtures.instance_graphs import options;"
        "from tests.fixtures.tiny_instance import STANDARD, model;"
        "from pointrend_deploy.graph.instance.export import export_instance_graphs;"
        "graphs = export_instance_graphs(model(STANDARD), options(layout='split'));"
        "[Path(sys.argv[1], f'{name}.onnx').write_bytes(each.SerializeToString(deterministic=True))"
        " for name, each in graphs.items()]"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin", "PYTHONPATH": "."},
    )
    for name, proto in export_instance_graphs(model(STANDARD), options(layout="split")).items():
        data = proto.SerializeToString(deterministic=True)
        assert data == (tmp_path / f"{name}.onnx").read_bytes()
        for word in (b"/home", b"/work", b"/root", b"site-packages", b".py", b"stack_trace"):
            assert word not in data, word
    pointrend = exported(SMALL, SINGLE)["model"]
    assert b"site-packages" not in pointrend and b"stack_trace" not in pointrend


def test_agnostic_heads_sigmoid_scores_and_more_detections_than_proposals() -> None:
    """All at once in ONNX Runtime; in FP16 what decides, the scores' sigmoid too, stays FP32."""
    recipe = changed(
        changed(SMALL_STANDARD, "mask_head", class_agnostic=True),
        "box_head",
        class_scores="sigmoid",
        score_threshold=0.01,
        nms_threshold=0.95,
    )
    chosen = options(masks="logits", detections=60)
    reference = made(recipe, chosen)
    image, extent = canvas(reference, [picture(*SIZES[2], 11)])
    found = answer(recipe, chosen, image=image, extent=extent)
    (count,) = same(found, referred(reference, image, extent), CLOSE)
    assert count > 40 == recipe.rpn.post_nms_topk
    whole = graph(recipe, chosen, "model")
    sigmoids = [node.name for node in whole.graph.node if node.op_type == "Sigmoid"]
    assert len(sigmoids) == 1
    assert not [node.name for node in whole.graph.node if node.op_type == "Softmax"]
    assert node_types(whole)[sigmoids[0]] == "float32"


def test_options_are_checked() -> None:
    chosen = options(detections=121)
    with pytest.raises(DeployError, match="121 detections are too many"):
        export_instance_graphs(made(SMALL, chosen), chosen)
