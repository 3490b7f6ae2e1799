"""The whole instance graph run eagerly in float64 is the reference; options and their refusals."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.instance.export import InstanceGraph, MasksGraph
from pointrend_deploy.graph.instance.specs import InstanceGraphOptions, instance_expected
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.recipe.instance import InstanceRecipe
from tests.fixtures.instance_graphs import (
    AGNOSTIC,
    GRID,
    SIZES,
    SMALL,
    canvas,
    made,
    options,
    referred,
    same,
)
from tests.fixtures.tiny_instance import POINTREND, STANDARD, changed, picture

EXACT = 1e-9


def run(
    reference: InstanceModel, chosen: InstanceGraphOptions, sizes: tuple[tuple[int, int], ...]
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    image, extent = canvas(reference, [picture(*size) for size in sizes])
    found = InstanceGraph(reference, chosen).eval()(image, extent)
    return found, referred(reference, image, extent)


def arrays(found: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize(
    "recipe",
    [
        POINTREND,
        STANDARD,
        AGNOSTIC,
        changed(STANDARD, "mask_head", class_agnostic=True),
        changed(SMALL, "point_head", in_features=("p2", "p3")),
    ],
    ids=["pointrend", "standard", "agnostic", "standard agnostic", "two fine levels"],
)
def test_equals_the_reference(recipe: InstanceRecipe) -> None:
    """Two pictures of different extents in one batch; every stage of the masks too."""
    chosen = options(batch=2, masks="logits")
    reference = made(recipe, chosen).double()
    found, wanted = run(reference, chosen, SIZES[:2])
    assert same(arrays(found), wanted, EXACT) == [8, 8]
    promised = instance_expected(recipe, msgspec.structs.replace(chosen, stages=True))["model"]
    assert list(found) == list(promised.outputs)
    for name, (_, shape) in promised.outputs.items():
        assert tuple(found[name].shape) == shape, name
    for n, each in enumerate(wanted):
        for name in each.keys() & {"coarse", "step0.point_logits"}:
            assert float((found[name][n] - each[name]).abs().max()) < EXACT


def test_no_detection_gives_zeros() -> None:
    chosen = options(masks="logits")
    reference = made(changed(SMALL, "box_head", score_threshold=0.9999999), chosen).double()
    found, wanted = run(reference, chosen, SIZES[:1])
    assert same(arrays(found), wanted, EXACT) == [0]


def test_masks_as_asked() -> None:
    """Probabilities, 255 of them rounded, and logits; rows past the detections are zero in all."""
    found = {}
    for kind in ("logits", "prob", "prob-u8"):
        chosen = options(masks=kind)
        found[kind], _ = run(made(SMALL, chosen), chosen, SIZES[2:3])
    count = int(found["prob"]["num_detections"][0])
    assert 0 < count < 8
    logits, prob, whole = (found[kind]["masks"][0] for kind in ("logits", "prob", "prob-u8"))
    assert torch.equal(prob[:count], logits[:count].sigmoid())
    assert whole.dtype == torch.uint8
    assert torch.equal(whole[:count], (255 * prob[:count]).round().to(torch.uint8))
    assert not any(each[count:].any() for each in (logits, prob, whole))
    assert found["logits"]["mask_logits"][0, count:].any()


def test_detections_are_limited_by_what_a_graph_orders() -> None:
    """With many classes TensorRT's TopK is the limit, not the number of candidates."""
    names = tuple(f"class {n}" for n in range(200))
    many = changed(POINTREND, "classes", names=names)
    options(detections=3840).check(many)
    with pytest.raises(DeployError, match=r"3841 detections are too many: .* 3840 at most"):
        options(detections=3841).check(many)


@pytest.mark.parametrize("recipe", [SMALL, STANDARD], ids=["pointrend", "standard"])
@pytest.mark.parametrize("rois", [1, 5, 8])
def test_masks_of_any_number_of_rois(recipe: InstanceRecipe, rois: int) -> None:
    chosen = options(layout="split", masks="logits")
    reference = made(recipe, chosen).double()
    image, extent = canvas(reference, [picture(*SIZES[0])])
    (wanted,) = referred(reference, image, extent)
    graph = MasksGraph(reference, chosen).eval()
    levels = [wanted[name] for name in graph.masks.features]
    found = graph(wanted["boxes"][:rois], wanted["classes"][:rois], *levels)
    apart = (found["masks"] - wanted["mask_logits"][:rois, 0]).abs()
    assert float(apart.max()) < EXACT


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"detections": 0}, "at least 1, not 0"),
        ({"detections": 121}, r"121 detections.* 40 proposals at 96x128, each with 3 classes"),
        ({"padded_hw": (0, 128)}, "0x128"),
        ({"padded_hw": (90, 128)}, "multiple of 32"),
        ({"batch": 0}, "batch"),
        ({"opset": 20}, "opset 20"),
        ({"ops": "both"}, "both"),
        ({"preprocess": "gpu"}, "gpu"),
        ({"masks": "bits"}, "bits"),
        ({"layout": "triple"}, "triple"),
    ],
)
def test_options_no_graph_can_be_made_for(change: dict[str, Any], word: str) -> None:
    with pytest.raises(DeployError, match=word):
        options(**change).check(POINTREND)


def test_recipes_no_graph_can_be_made_for() -> None:
    options(padded_hw=GRID).check(POINTREND)
    large = changed(POINTREND, "rpn", anchor_sizes=((97.0,), (128.0,), (256.0,), (512.0,)))
    with pytest.raises(DeployError, match="smaller than one anchor"):
        options(padded_hw=GRID).check(large)
    levels = tuple(f"p{level}" for level in range(2, 7))
    with pytest.raises(DeployError, match="4 pyramid levels"):
        options(padded_hw=GRID).check(changed(POINTREND, "box_head", in_features=levels))
