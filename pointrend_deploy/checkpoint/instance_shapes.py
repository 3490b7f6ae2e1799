"""What a checkpoint's shapes say about an instance model, against what the recipe says.

The companion of :mod:`pointrend_deploy.checkpoint.semantic_shapes` for ``task = "instance"``.
Anchor sizes, thresholds and numbers of proposals and points leave no trace in the shapes and are
not checked, nor is ``point_head.subdivision_steps``. Old checkpoints keep their anchors as tensors;
those are checked by their values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from pointrend_deploy.checkpoint.shapes import (
    Contradiction,
    Shapes,
    backbone_contradictions,
    class_contradictions,
    count_matches,
    numbers_matched,
    pyramid_channels,
    pyramid_contradictions,
    value,
)
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import (
    CoarseMaskHeadSpec,
    InstancePointHeadSpec,
    InstanceRecipe,
    StandardMaskHeadSpec,
    cell_anchors,
)
from pointrend_deploy.wording import count_of

_BOX_HEAD = "roi_heads.box_head."
_BOX_CONVOLUTION = r"roi_heads\.box_head\.conv(\d{1,3})\.weight"
_MASK_HEAD = "roi_heads.mask_head."
_COARSE_HEAD = f"{_MASK_HEAD}coarse_head."
_POINT_HEAD = f"{_MASK_HEAD}point_head."
_IMPLICIT_HEAD = f"{_MASK_HEAD}parameter_head."
FED_LOSS_WEIGHTS = "roi_heads.box_predictor.fed_loss_cls_weights"
"""Weights of classes in detectron2's federated loss: of training alone, kept in its checkpoints."""


def instance_contradictions(shapes: Shapes, recipe: InstanceRecipe) -> list[Contradiction]:
    """List every key of the recipe that the shapes contradict, in the recipe's order.

    Args:
        shapes: parameter name (today's) to shape.
        recipe: for an instance model.

    Raises:
        DeployError: the checkpoint is of Implicit PointRend, which no recipe describes.
    """
    _refuse_implicit(shapes)
    return [
        *class_contradictions(_num_classes(shapes), recipe.num_classes, " and background"),
        *backbone_contradictions(shapes, recipe.backbone),
        *pyramid_contradictions(shapes, recipe.fpn),
        *_anchors(shapes, recipe),
        *_box_head(shapes, recipe),
        *_mask_head(shapes, recipe),
    ]


def _refuse_implicit(shapes: Shapes) -> None:
    sizes = [math.prod(s) for name, s in shapes.items() if name.startswith(_IMPLICIT_HEAD)]
    if sizes:
        raise DeployError(
            "the checkpoint is of Implicit PointRend: its parameter head predicts the weights of "
            f"another point head for every object and has {sum(sizes) / 1e6:.0f} million weights "
            "itself, too many for the devices this is for",
            "use a PointRend checkpoint with a standard point head, such as detectron2's "
            "pointrend_rcnn_R_50_FPN_3x_coco with export/pointrend_mask_rcnn_r50_fpn_coco.toml",
        )


def _differ(key: str, says: object, holds: object, what: str) -> Iterator[Contradiction]:
    if says != holds:
        yield Contradiction(key, says, f"the checkpoint's {what}", value(holds))


def _side(key: str, says: int, cells: tuple[int, int], what: str) -> Iterator[Contradiction]:
    """Compare the side of a square map with what a layer takes or gives: (values, a cell's)."""
    values, each = cells
    if each < 1 or values == each * says**2:
        return
    side = math.isqrt(values // each)
    fits = value(side) if each * side**2 == values else {}
    found = f"the checkpoint's {what} {values} values, {each} a cell"
    yield Contradiction(key, says, found if fits else f"{found}, which no square map has", fits)


def _num_classes(shapes: Shapes) -> int | None:
    shape = shapes.get("roi_heads.box_predictor.cls_score.weight")
    return shape[0] - 1 if shape else None


def _anchors(shapes: Shapes, recipe: InstanceRecipe) -> Iterator[Contradiction]:
    shape = shapes.get("proposal_generator.rpn_head.objectness_logits.weight")
    if shape:
        spec = recipe.rpn
        sizes, ratios = map(len, spec.anchors[0])
        if spec.anchors_a_cell != shape[0]:
            yield Contradiction(
                "rpn.anchor_sizes",
                f"{sizes} a level, with {count_of(ratios, 'aspect ratio')}",
                f"the checkpoint has {count_of(shape[0], 'anchor')} a cell, which is the number of "
                "sizes times that of ratios",
            )
        several = count_matches(
            shapes, r"proposal_generator\.rpn_head\.conv\.conv(\d{1,3})\.weight"
        )
        count = several or 1
        what = f"RPN head has {count_of(count, '3x3 convolution')}"
        yield from _differ("rpn.num_conv", spec.num_conv, count, what)


def _pooled_channels(shapes: Shapes, recipe: InstanceRecipe) -> int:
    """Channels of the features that the box head's first fully connected layer takes."""
    last = max(numbers_matched(shapes, _BOX_CONVOLUTION), default=0)
    convolution = shapes.get(f"{_BOX_HEAD}conv{last}.weight")
    return convolution[0] if convolution else pyramid_channels(shapes) or recipe.fpn.out_channels


def _box_head(shapes: Shapes, recipe: InstanceRecipe) -> Iterator[Contradiction]:
    spec = recipe.box_head
    convs = count_matches(shapes, _BOX_CONVOLUTION)
    layers = count_matches(shapes, re.escape(_BOX_HEAD) + r"fc(\d{1,3})\.weight")
    first = shapes.get(f"{_BOX_HEAD}fc1.weight", ())
    if convs or layers:
        what = f"box head has {count_of(convs, 'convolution')}"
        yield from _differ("box_head.num_conv", spec.num_conv, convs, what)
    convolution = shapes.get(f"{_BOX_HEAD}conv1.weight")
    if convolution:
        channels = convolution[0]
        what = f"box head's convolutions are {channels} wide"
        yield from _differ("box_head.channels", spec.channels, channels, what)
    if convs or layers:
        what = f"box head has {count_of(layers, 'layer')}"
        yield from _differ("box_head.num_fc", spec.num_fc, layers, what)
    if len(first) == 2:
        cells = first[1], _pooled_channels(shapes, recipe)
        key, says = "box_head.pooler_resolution", spec.pooler_resolution
        yield from _side(key, says, cells, "first layer takes")
        what = f"box head's layers are {first[0]} wide"
        yield from _differ("box_head.fc_dim", spec.fc_dim, first[0], what)
    boxes = shapes.get("roi_heads.box_predictor.bbox_pred.weight")
    if boxes:
        agnostic = boxes[0] == 4 and _num_classes(shapes) != 1
        one = agnostic or (boxes[0] == 4 and spec.class_agnostic)
        what = f"box predictor has {count_of(boxes[0], 'row')}"
        yield from _differ("box_head.class_agnostic", spec.class_agnostic, one, what)


def _mask_head(shapes: Shapes, recipe: InstanceRecipe) -> Iterator[Contradiction]:
    spec, points = recipe.mask_head, recipe.point_head
    pointrend = any(name.startswith((_COARSE_HEAD, _POINT_HEAD)) for name in shapes)
    if pointrend == isinstance(spec, StandardMaskHeadSpec):
        kind, fits = ("standard", "pointrend") if pointrend else ("pointrend", "standard")
        other = "PointRend's" if pointrend else "Mask R-CNN's own"
        yield Contradiction(
            "mask_head.kind", kind, f"the checkpoint's mask head is {other}", {fits: fits}
        )
    elif isinstance(spec, StandardMaskHeadSpec):
        yield from _standard(shapes, spec)
    elif points is not None:
        yield from _coarse(shapes, recipe, spec)
        yield from _points(shapes, recipe, points)


def _standard(shapes: Shapes, spec: StandardMaskHeadSpec) -> Iterator[Contradiction]:
    layers = count_matches(shapes, re.escape(_MASK_HEAD) + r"mask_fcn(\d{1,3})\.weight")
    yield from _differ(
        "mask_head.num_conv",
        spec.num_conv,
        layers,
        f"mask head has {count_of(layers, 'convolution')}",
    )
    predictor = shapes.get(f"{_MASK_HEAD}predictor.weight")
    if predictor and len(predictor) == 4:
        rows, width = predictor[:2]
        what = f"mask head's layers are {width} wide"
        yield from _differ("mask_head.channels", spec.channels, width, what)
        yield from _agnostic(shapes, "mask_head", spec.class_agnostic, rows)


def _coarse(
    shapes: Shapes, recipe: InstanceRecipe, spec: CoarseMaskHeadSpec
) -> Iterator[Contradiction]:
    conv = shapes.get(f"{_COARSE_HEAD}reduce_spatial_dim_conv.weight")
    if conv:
        what = f"coarse head's first layer is {conv[0]} wide"
        yield from _differ("mask_head.channels", spec.channels, conv[0], what)
    layers = count_matches(shapes, re.escape(_COARSE_HEAD) + r"fc(\d{1,3})\.weight")
    yield from _differ(
        "mask_head.num_fc", spec.num_fc, layers, f"coarse head has {count_of(layers, 'layer')}"
    )
    prediction = shapes.get(f"{_COARSE_HEAD}prediction.weight")
    if prediction and len(prediction) == 2:
        rows, width = prediction
        what = f"coarse head's layers are {width} wide"
        yield from _differ("mask_head.fc_dim", spec.fc_dim, width, what)
        cells = rows, _num_classes(shapes) or recipe.num_classes
        key, says = "mask_head.output_resolution", spec.output_resolution
        yield from _side(key, says, cells, "coarse head predicts")
    first = shapes.get(f"{_COARSE_HEAD}fc1.weight", ())
    if conv and len(first) == 2:
        yield from _halved(spec, first[1], conv[0])


def _halved(spec: CoarseMaskHeadSpec, values: int, channels: int) -> Iterator[Contradiction]:
    """Compare the pooled side with what the coarse head's fc1 takes: a map of half the side."""
    what = "coarse head's fc1 takes"
    for found in _side("", spec.pooler_resolution // 2, (values, channels), what):
        fits = [2 * side for side in found.fits.values() if isinstance(side, int)]
        key, says = "mask_head.pooler_resolution", spec.pooler_resolution
        yield Contradiction(key, says, f"{found.holds} of half the side", value(*fits))


def _points(
    shapes: Shapes, recipe: InstanceRecipe, spec: InstancePointHeadSpec
) -> Iterator[Contradiction]:
    classes = _num_classes(shapes) or recipe.num_classes
    first = shapes.get(f"{_POINT_HEAD}fc1.weight", ())
    predictor = shapes.get(f"{_POINT_HEAD}predictor.weight", ())
    layers = count_matches(shapes, re.escape(_POINT_HEAD) + r"fc(\d{1,3})\.weight")
    yield from _differ(
        "point_head.num_fc", spec.num_fc, layers, f"point head has {count_of(layers, 'layer')}"
    )
    if len(first) != 3 or len(predictor) != 3:
        return
    width, inputs = first[:2]
    channels = pyramid_channels(shapes) or recipe.fpn.out_channels or 1
    count, rest = divmod(inputs - classes, channels)
    if inputs != len(spec.in_features) * channels + classes:
        levels = list(recipe.pyramid[:count])
        yield Contradiction(
            "point_head.in_features",
            list(spec.in_features),
            f"the checkpoint's fc1 takes {inputs} channels, of which {classes} are coarse logits "
            f"and {channels} those of a feature",
            {count_of(count, "feature"): levels} if (rest, len(levels)) == (0, count) else {},
        )
    what = f"point head's layers are {width} wide"
    yield from _differ("point_head.fc_dim", spec.fc_dim, width, what)
    joined = {width: False, width + classes: True}.get(predictor[1])
    if joined is not None:
        what = f"later layers take {predictor[1]} channels"
        key = "point_head.coarse_in_every_layer"
        yield from _differ(key, spec.coarse_in_every_layer, joined, what)
    yield from _agnostic(shapes, "point_head", spec.class_agnostic, predictor[0])


def _agnostic(shapes: Shapes, table: str, says: bool, rows: int) -> Iterator[Contradiction]:
    """A predictor of one row is class-agnostic, unless there is only one class: then either is."""
    agnostic = rows == 1 and (says or _num_classes(shapes) != 1)
    yield from _differ(
        f"{table}.class_agnostic", says, agnostic, f"predictor has {count_of(rows, 'row')}"
    )


def score_contradictions(names: Collection[str], recipe: InstanceRecipe) -> Iterator[Contradiction]:
    """Yield ``class_scores`` where the checkpoint was trained with the federated loss.

    detectron2 has that loss with sigmoid scores only (fast_rcnn.py, FastRCNNOutputLayers). Without
    it no name and no shape tells which of the two the scores are.
    """
    if FED_LOSS_WEIGHTS in names:
        what = "training was with the federated loss, whose scores are sigmoids"
        says = recipe.box_head.class_scores
        yield from _differ("box_head.class_scores", says, "sigmoid", what)


_ANCHORS = "proposal_generator.anchor_generator.cell_anchors."


def anchor_contradictions(
    tensors: Mapping[str, Tensor], recipe: InstanceRecipe
) -> Iterator[Contradiction]:
    """Yield the levels whose anchors, which old checkpoints keep, differ from the recipe's."""
    spec = recipe.rpn
    for level, (sizes, ratios) in enumerate(spec.anchors):
        held = tensors.get(f"{_ANCHORS}{level}")
        if held is None:
            continue
        says = torch.tensor(cell_anchors(sizes, ratios))
        if held.shape != says.shape or not torch.allclose(held.float(), says, atol=1e-3):
            shown = [[round(v, 2) for v in box] for box in held.flatten()[:8].view(-1, 4).tolist()]
            yield Contradiction(
                "rpn.anchor_sizes",
                [list(sizes) for sizes, _ in spec.anchors],
                f"the checkpoint's anchors of {spec.in_features[level]} are others: {shown}, ...",
            )


def anchors_are_held(tensors: Mapping[str, Tensor], recipe: InstanceRecipe) -> bool:
    """Whether a checkpoint has the anchors of every level, so that all were compared."""
    return all(f"{_ANCHORS}{level}" in tensors for level in range(len(recipe.rpn.anchors)))
