"""Exported instance graphs of small models, and their answers beside the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointrend_deploy.graph.instance.export import export_instance_graphs
from pointrend_deploy.graph.instance.specs import InstanceGraphOptions
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.model.network_input import network_input
from pointrend_deploy.recipe.instance import InstanceRecipe
from tests.model.tiny_instance import POINTREND, STANDARD, changed, model, picture

GRID = (96, 128)
SIZES = ((90, 120), (64, 100), (96, 128), (33, 40))
"""Heights and widths of pictures on that grid."""

# Two steps from 14 x 14 on: as many stages as a test needs, and half the nodes. Some of the
# pictures have more than eight detections, some fewer.
SMALL = changed(
    changed(POINTREND, "point_head", subdivision_steps=3, subdivision_points=196),
    "box_head",
    score_threshold=0.53,
)
SMALL_STANDARD = changed(
    changed(STANDARD, "mask_head", num_conv=1), "box_head", class_agnostic=True
)
AGNOSTIC = changed(
    changed(SMALL, "box_head", class_agnostic=True), "point_head", class_agnostic=True
)
Arrays = dict[str, NDArray[Any]]


def options(**changes: Any) -> InstanceGraphOptions:
    """Eight detections on :data:`GRID`."""
    return InstanceGraphOptions(**{"padded_hw": GRID, "detections": 8, **changes})


def made(recipe: InstanceRecipe, chosen: InstanceGraphOptions, seed: int = 0) -> InstanceModel:
    """A seeded model whose reference keeps as many detections as the graph.

    Its class logits are spread and centred over the proposals of one picture: random weights alone
    find the same class with the same score everywhere.
    """
    reference = model(changed(recipe, "box_head", detections=chosen.detections), seed)
    stages = reference.stages(picture(*SIZES[0], 11))
    layer = reference.roi_heads.box_predictor.cls_score
    logits, _ = reference.box_predictions(stages, stages["proposals"])
    gain = 2.0 / logits.std(dim=0)
    layer.weight.mul_(gain.unsqueeze(1))
    layer.bias.copy_((layer.bias - logits.mean(dim=0)) * gain)
    return reference


@cache
def exported(recipe: InstanceRecipe, chosen: InstanceGraphOptions) -> dict[str, bytes]:
    """The graphs of :func:`made`, serialised."""
    graphs = export_instance_graphs(made(recipe, chosen), chosen)
    return {name: graph.SerializeToString() for name, graph in graphs.items()}


@cache
def session(recipe: InstanceRecipe, chosen: InstanceGraphOptions, name: str) -> Any:
    data = exported(recipe, chosen)[name]
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"])


def graph(recipe: InstanceRecipe, chosen: InstanceGraphOptions, name: str) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(exported(recipe, chosen)[name])


def answer(
    recipe: InstanceRecipe, chosen: InstanceGraphOptions, name: str = "model", **feed: Tensor
) -> Arrays:
    """What ONNX Runtime gives."""
    running = session(recipe, chosen, name)
    names = [output.name for output in running.get_outputs()]
    found = running.run(None, {key: value.numpy() for key, value in feed.items()})
    return dict(zip(names, found, strict=True))


def canvas(
    reference: InstanceModel, pictures: Sequence[NDArray[np.uint8]], grid: tuple[int, int] = GRID
) -> tuple[Tensor, Tensor]:
    """Pictures in the corner of the network grid, (N, 3, H, W), and their extents (N, 2)."""
    like = next(reference.parameters())
    image = like.new_zeros(len(pictures), 3, *grid)
    for row, each in zip(image, pictures, strict=True):
        x = network_input(each, reference.recipe.input).to(like)[0]
        row[:, : x.shape[1], : x.shape[2]] = x
    return image, torch.tensor([each.shape[:2] for each in pictures])


def referred(reference: InstanceModel, image: Tensor, extent: Tensor) -> list[dict[str, Tensor]]:
    """The reference's stages of every picture."""
    return [
        reference.canvas_stages(image[n : n + 1], (int(extent[n, 0]), int(extent[n, 1])))
        for n in range(len(image))
    ]


def same(found: Arrays, wanted: Sequence[dict[str, Tensor]], accept: float) -> list[int]:
    """The same detections and masks, row by row, and zeros past them; their numbers.

    ``accept`` bounds boxes in pixels, scores, and mask logits but for one in a thousand, as
    points of nearly the K-th uncertainty may be other ones.
    """
    counts = []
    for n, each in enumerate(wanted):
        count = len(each["boxes"])
        assert int(found["num_detections"][n]) == count
        for name in ("boxes", "scores", "classes"):
            apart = np.abs(found[name][n, :count] - each[name].numpy())
            assert apart.max(initial=0.0) <= accept, name
            assert not found[name][n, count:].any(), name
        masks = each["mask_logits"][:, 0].numpy()
        apart = np.abs(found["masks"][n, :count] - masks)
        assert (apart > accept).mean() < 1e-3 if count else True, apart.max()
        assert not found["masks"][n, count:].any()
        counts.append(count)
    return counts


def split_answer(recipe: InstanceRecipe, chosen: InstanceGraphOptions, **feed: Tensor) -> Arrays:
    """Detector, then the masks of each picture's detections: the outputs of the single graph."""
    assert msgspec.structs.asdict(chosen)["layout"] == "split"
    found = answer(recipe, chosen, "detector", **feed)
    levels = [i.name for i in session(recipe, chosen, "masks").get_inputs()][2:]
    rows, masks = chosen.detections, []
    for n in range(chosen.batch):
        count = int(found["num_detections"][n])
        side = recipe.mask_side
        padded = np.zeros((rows, side, side), np.float32)
        if count:
            inputs = {name: found[name][n, :count] for name in ("boxes", "classes")}
            inputs |= {name: found[name][n : n + 1] for name in levels}
            tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
            padded[:count] = answer(recipe, chosen, "masks", **tensors)["masks"]
        masks.append(padded)
    return {**found, "masks": np.stack(masks)}
