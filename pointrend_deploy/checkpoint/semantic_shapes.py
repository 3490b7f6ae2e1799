"""What a checkpoint's shapes say about its model, against what the recipe says.

Every key of a recipe that leaves a trace in the parameters' shapes is read back from them. Which
convolution of a ResNet block has the stride (``stride_in_1x1``) leaves none and is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pointrend_deploy.checkpoint.names import COARSE_HEAD, LONE_HEAD, POINT_HEAD
from pointrend_deploy.checkpoint.shapes import (
    Contradiction,
    Shapes,
    backbone_contradictions,
    class_contradictions,
    count_matches,
    norm_contradictions,
    numbers_matched,
    pyramid_channels,
    pyramid_contradictions,
    toml_value,
)
from pointrend_deploy.recipe.parts import PointHeadSpec
from pointrend_deploy.recipe.semantic import CoarseHeadSpec, Recipe


def semantic_contradictions(shapes: Shapes, recipe: Recipe) -> list[Contradiction]:
    """List every key of the recipe that the shapes contradict, in the recipe's order.

    Args:
        shapes: parameter name (today's) to shape.
        recipe: for a semantic model.
    """
    return [
        *class_contradictions(_coarse_classes(shapes), recipe.num_classes),
        *backbone_contradictions(shapes, recipe.backbone),
        *pyramid_contradictions(shapes, recipe.fpn),
        *_coarse_head(shapes, recipe.coarse_head),
        *_point_head(shapes, recipe),
    ]


def _coarse_head(shapes: Shapes, spec: CoarseHeadSpec) -> Iterator[Contradiction]:
    head = re.escape(_coarse_prefix(shapes))
    convolutions: dict[int, int] = {}
    for level in sorted(numbers_matched(shapes, head + r"p(\d{1,3})\.0\.weight")):
        convolutions[level] = count_matches(shapes, f"{head}p{level}" + r"\.(\d{1,3})\.weight")
    if not convolutions:
        return
    names = [f"p{level}" for level in convolutions]
    if names != sorted(spec.in_features):
        yield Contradiction(
            "coarse_head.in_features",
            list(spec.in_features),
            f"the checkpoint's coarse head reads other levels: {toml_value(names)} would fit",
        )
    first = f"{_coarse_prefix(shapes)}{names[0]}.0."
    channels = next(iter(shapes[first + "weight"]), None)
    if channels is not None and channels != spec.channels:
        yield Contradiction(
            "coarse_head.channels",
            spec.channels,
            f"the checkpoint's coarse head has {channels} channels: {channels} would fit",
        )
    yield from norm_contradictions(shapes, "coarse_head", spec.norm, first.removesuffix("."))
    strides = [2**e for e in range(2, 6) if _convolutions_fit(convolutions, e)]
    if strides and spec.common_stride not in strides:
        yield Contradiction(
            "coarse_head.common_stride",
            spec.common_stride,
            f"the checkpoint has {toml_value(list(convolutions.values()))} convolutions a level: "
            f"{' or '.join(map(str, strides))} would fit",
        )


def _convolutions_fit(convolutions: Mapping[int, int], exponent: int) -> bool:
    return all(
        level >= exponent and count == max(1, level - exponent)
        for level, count in convolutions.items()
    )


def _point_head(shapes: Shapes, recipe: Recipe) -> Iterator[Contradiction]:
    layers = count_matches(shapes, re.escape(POINT_HEAD) + r"fc(\d{1,3})\.weight")
    spec = recipe.point_head
    if spec is None and layers:
        yield Contradiction(
            "point_head", "absent", "the checkpoint has one: a pointrend_semantic_fpn recipe fits"
        )
    if spec is not None and not layers:
        yield Contradiction(
            "point_head", "present", "the checkpoint has none: a semantic_fpn recipe would fit"
        )
    if spec is not None and layers:
        yield from _point_layers(shapes, recipe, spec, layers)


def _point_layers(
    shapes: Shapes, recipe: Recipe, spec: PointHeadSpec, layers: int
) -> Iterator[Contradiction]:
    classes = _coarse_classes(shapes) or recipe.num_classes
    first = shapes.get(f"{POINT_HEAD}fc1.weight", ())
    predictor = shapes.get(f"{POINT_HEAD}predictor.weight", ())
    fine_channels = pyramid_channels(shapes) or recipe.fpn.out_channels
    if len(first) == 3:
        width, inputs = first[:2]
        count, rest = divmod(inputs - classes, fine_channels)
        if rest == 0 and count >= 1 and count != len(spec.in_features):
            yield Contradiction(
                "point_head.in_features",
                list(spec.in_features),
                f"the checkpoint's fc1 takes {inputs} = {count} x {fine_channels} + {classes} "
                f"channels: {count} features would fit",
            )
        if width != spec.fc_dim:
            yield Contradiction(
                "point_head.fc_dim",
                spec.fc_dim,
                f"the checkpoint's layers are {width} wide: {width} would fit",
            )
    if layers != spec.num_fc:
        yield Contradiction(
            "point_head.num_fc",
            spec.num_fc,
            f"the checkpoint has {layers} hidden layers: {layers} would fit",
        )
    if len(first) == 3 and len(predictor) == 3:
        joined = {first[0]: False, first[0] + classes: True}.get(predictor[1])
        if joined is not None and joined != spec.coarse_in_every_layer:
            yield Contradiction(
                "point_head.coarse_in_every_layer",
                spec.coarse_in_every_layer,
                f"the checkpoint's later layers take {predictor[1]} channels: "
                f"{toml_value(joined)} would fit",
            )
    if len(predictor) == 3 and predictor[0] == 1 != classes:
        yield Contradiction(
            "task",
            recipe.task,
            "the checkpoint's point head is class-agnostic (its predictor has 1 row): it "
            f"predicts one mask, and a semantic model needs a logit for each of {classes} "
            "classes; no semantic recipe fits",
        )


def _coarse_prefix(shapes: Shapes) -> str:
    return COARSE_HEAD if any(name.startswith(COARSE_HEAD) for name in shapes) else LONE_HEAD


def _coarse_classes(shapes: Shapes) -> int | None:
    shape = shapes.get(_coarse_prefix(shapes) + "predictor.weight")
    return shape[0] if shape else None
