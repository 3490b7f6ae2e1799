"""Graphs of models with norms, convolutions in the box head, anchors a level, fixed samples.

The whole way: exported, run by ONNX Runtime against the reference, quantised, and built.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.engine.build import Request, build_engine
from pointrend_deploy.engine.flavour import flavour_of
from pointrend_deploy.engine.plugin_library import load_library
from pointrend_deploy.engine.targets import Target
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.progress import Silent
from pointrend_deploy.quantize.check import check_islands
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import place
from pointrend_deploy.recipe.instance import InstanceRecipe
from tests.engine.quantized import int8_of
from tests.engine.rtx import built_library, rtx_needed
from tests.fixtures import instance_graphs
from tests.fixtures.instance_graphs import SIZES, answer, canvas, options, referred, same
from tests.fixtures.tiny_instance import STANDARD, changed, picture

CLOSE = 2e-3
"""FP32 against FP32: group norms of random features divide by small deviations."""

SINGLE = options(masks="logits", stages=True)
SPLIT = options(masks="logits", layout="split", ops="native")


def varied(norm: str) -> InstanceRecipe:
    """All that detectron2's variants have, in one small model."""
    recipe = changed(STANDARD, "fpn", out_channels=32, norm=norm)
    recipe = changed(
        recipe,
        "rpn",
        num_conv=2,
        anchor_sizes=((16.0, 24.0), (32.0, 48.0), (64.0, 96.0), (128.0, 192.0)),
        aspect_ratios=((0.5, 1.0), (1.0, 2.0), (0.7, 1.3), (1.0, 3.0)),
    )
    heads = {"channels": 32, "norm": norm, "num_conv": 2}
    recipe = changed(recipe, "box_head", num_fc=1, sampling_ratio=2, **heads)
    return changed(recipe, "mask_head", sampling_ratio=3, **heads)


GROUPED = varied("GN")
BATCHED = changed(varied("SyncBN"), "box_head", num_fc=0)


def reference(recipe: InstanceRecipe, chosen: object) -> InstanceModel:
    assert isinstance(chosen, type(SINGLE))
    return instance_graphs.made(recipe, chosen)


@pytest.mark.parametrize(
    ("recipe", "chosen"),
    [(GROUPED, SINGLE), (BATCHED, SPLIT)],
    ids=["group norms", "batch norms, a box head of convolutions alone, native"],
)
def test_onnx_runtime_answers_as_the_reference(recipe: InstanceRecipe, chosen: object) -> None:
    model = reference(recipe, chosen)
    assert isinstance(chosen, type(SINGLE))
    total = 0
    for seed, size in enumerate(SIZES[1:3]):
        image, extent = canvas(model, [picture(*size, seed)])
        split = chosen.layout == "split"
        run = instance_graphs.split_answer if split else answer
        found = run(recipe, chosen, image=image, extent=extent)
        total += sum(same(found, referred(model, image, extent), CLOSE))
    assert total > 8


def test_batch_norms_are_folded_and_group_norms_are_not() -> None:
    names = ("detector", "masks")
    graphs = [instance_graphs.graph(BATCHED, SPLIT, name) for name in names]
    ops = {node.op_type for graph in graphs for node in graph.graph.node}
    assert not ops & {"BatchNormalization", "InstanceNormalization"}
    grouped = instance_graphs.graph(GROUPED, SINGLE, "model")
    norms = [n.name for n in grouped.graph.node if n.op_type == "InstanceNormalization"]
    assert len(norms) == 6 + 2 + 2
    assert "roi_heads.mask_head.mask_fcn2.norm.instancenormalization" in norms
    pooled = [n for n in grouped.graph.node if n.op_type == "PointRendRoIAlignFixed"]
    ratios = [a.i for node in pooled for a in node.attribute if a.name == "sampling_ratio"]
    assert ratios == [2, 3]


def test_fp16_answers_nearly_as_fp32() -> None:
    """Proposals and detections, up to those that rounding moves across a threshold."""
    model = instance_graphs.graph(GROUPED, SINGLE, "model")
    half = to_half(model).model
    check_islands(half)
    image, extent = canvas(reference(GROUPED, SINGLE), [picture(*SIZES[0])])
    wanted = answer(GROUPED, SINGLE, image=image, extent=extent)
    session = ort.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feed = {"image": image.numpy(), "extent": extent.numpy()}
    found = dict(zip(names, session.run(names, feed), strict=True))
    for level in ("p2", "p3", "p4", "p5"):
        spread = float(np.std(wanted[level]))
        assert float(np.abs(found[level] - wanted[level]).mean()) < 0.02 * spread, level


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_rtx_builds(
    precision: Precision, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rtx_needed()
    fp32 = instance_graphs.graph(GROUPED, SINGLE, "model")
    graph = int8_of(fp32) if precision == "int8" else to_half(fp32).model
    onnx.save(graph, tmp_path / "model.onnx")
    request = Request(
        graph=tmp_path / "model.onnx",
        stem="model",
        target=Target(flavour_of("tensorrt_rtx"), 86),
        precision=precision,
        ops="plugin",
        workspace_mib=256,
        sizes={},
        library=load_library(built_library(tmp_path_factory)),
    )
    engine = build_engine(request, tmp_path, Silent())
    kinds = engine.table.weighted
    if precision == "int8":
        assert {name for name, kind in kinds.items() if kind == "int8"} == set(place(fp32).int8)
        assert "roi_heads.box_head.conv2" in place(fp32).int8
    else:
        assert set(kinds.values()) == {"float16"}
