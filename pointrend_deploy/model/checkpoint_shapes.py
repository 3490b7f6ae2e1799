"""What a checkpoint's shapes say about its model, against what the recipe says.

Every key of a recipe that leaves a trace in the parameters' shapes is read back from them. Where
the stride of a ResNet's blocks stands (``stride_in_1x1``) leaves none and is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pointrend_deploy.model.checkpoint_names import COARSE_HEAD, LONE_HEAD, POINT_HEAD
from pointrend_deploy.recipe import (
    CoarseHeadSpec,
    EfficientNetLiteSpec,
    FPNSpec,
    PointHeadSpec,
    Recipe,
    ResNetSpec,
)

Shapes = Mapping[str, tuple[int, ...]]

_BOTTOM_UP = "backbone.bottom_up."
_DEPTH_BY_RES4_BLOCKS = {6: 50, 23: 101}


@dataclass(frozen=True)
class Contradiction:
    """A key of the recipe that the checkpoint's shapes contradict.

    Attributes:
        key: path in the recipe.
        says: the recipe's value.
        holds: what the checkpoint has, ending in the value that would fit, if one does.
    """

    key: str
    says: object
    holds: str

    def __str__(self) -> str:
        return f"`{self.key}` is {_plain(self.says)}; {self.holds}"


def contradictions(shapes: Shapes, recipe: Recipe) -> list[Contradiction]:
    """Every key of the recipe that the shapes contradict, in the recipe's order.

    Args:
        shapes: parameter name (today's) to shape.
        recipe: for a semantic model.
    """
    return [
        *_classes(shapes, recipe),
        *backbone_contradictions(shapes, recipe.backbone),
        *pyramid_contradictions(shapes, recipe.fpn),
        *_coarse_head(shapes, recipe.coarse_head),
        *_point_head(shapes, recipe),
    ]


def _classes(shapes: Shapes, recipe: Recipe) -> Iterator[Contradiction]:
    classes = _coarse_classes(shapes)
    if classes is not None and classes != recipe.num_classes:
        yield Contradiction(
            "classes.names",
            f"{recipe.num_classes} names",
            f"the checkpoint predicts {classes} classes: {classes} names would fit",
        )


def backbone_contradictions(
    shapes: Shapes, spec: ResNetSpec | EfficientNetLiteSpec
) -> Iterator[Contradiction]:
    """What of a recipe's ``backbone`` table the shapes contradict."""
    kind = _backbone_kind(shapes)
    wanted = "resnet" if isinstance(spec, ResNetSpec) else "efficientnet_lite0"
    if kind is not None and kind != wanted:
        yield Contradiction(
            "backbone.kind", wanted, f"the checkpoint's backbone is another: {kind} would fit"
        )
    if not isinstance(spec, ResNetSpec) or kind != "resnet":
        return
    blocks = _count(shapes, re.escape(_BOTTOM_UP) + r"res4\.(\d{1,3})\.conv1\.weight")
    depth = _DEPTH_BY_RES4_BLOCKS.get(blocks)
    if depth != spec.depth:
        fits = f"{depth} would fit" if depth else "no depth of a recipe fits"
        yield Contradiction(
            "backbone.depth", spec.depth, f"the checkpoint's res4 has {blocks} blocks: {fits}"
        )
    conv2 = shapes.get(f"{_BOTTOM_UP}res2.0.conv2.weight")
    if conv2 is None or len(conv2) != 4 or 0 in conv2:
        return
    groups, width = conv2[0] // conv2[1], conv2[1]
    read_back: tuple[tuple[str, int, int], ...] = (
        ("backbone.groups", spec.groups, groups),
        ("backbone.width_per_group", spec.width_per_group, width),
    )
    for key, says, value in read_back:
        if says != value:
            yield Contradiction(
                key,
                says,
                f"the checkpoint's 3x3 in res2 has {groups} x {width} channels: {value} would fit",
            )


def _backbone_kind(shapes: Shapes) -> str | None:
    if f"{_BOTTOM_UP}stem.conv1.weight" in shapes:
        return "resnet"
    if f"{_BOTTOM_UP}blocks.0.depthwise.0.weight" in shapes:
        return "efficientnet_lite0"
    return None


def pyramid_contradictions(shapes: Shapes, spec: FPNSpec) -> Iterator[Contradiction]:
    """What of a recipe's ``fpn`` table the shapes contradict."""
    levels = _matches(shapes, r"backbone\.fpn_lateral(\d{1,3})\.weight")
    names = [f"res{level}" for level in sorted(levels)]
    if names and names != sorted(spec.in_features):
        yield Contradiction(
            "fpn.in_features",
            list(spec.in_features),
            f"the checkpoint's pyramid has other levels: {_plain(names)} would fit",
        )
    channels = _pyramid_channels(shapes)
    if channels is not None and channels != spec.out_channels:
        yield Contradiction(
            "fpn.out_channels",
            spec.out_channels,
            f"the checkpoint's pyramid has {channels} channels: {channels} would fit",
        )


def _coarse_head(shapes: Shapes, spec: CoarseHeadSpec) -> Iterator[Contradiction]:
    head = re.escape(_coarse_prefix(shapes))
    convolutions: dict[int, int] = {}
    for level in sorted(_matches(shapes, head + r"p(\d{1,3})\.0\.weight")):
        convolutions[level] = _count(shapes, f"{head}p{level}" + r"\.(\d{1,3})\.weight")
    if not convolutions:
        return
    names = [f"p{level}" for level in convolutions]
    if names != sorted(spec.in_features):
        yield Contradiction(
            "coarse_head.in_features",
            list(spec.in_features),
            f"the checkpoint's coarse head reads other levels: {_plain(names)} would fit",
        )
    first = f"{_coarse_prefix(shapes)}{names[0]}.0."
    channels = next(iter(shapes[first + "weight"]), None)
    if channels is not None and channels != spec.channels:
        yield Contradiction(
            "coarse_head.channels",
            spec.channels,
            f"the checkpoint's coarse head has {channels} channels: {channels} would fit",
        )
    norm = "GN" if first + "norm.weight" in shapes else ""
    if first + "norm.running_mean" in shapes:
        yield Contradiction(
            "coarse_head.norm", spec.norm, "the checkpoint's has batch norm: no value fits"
        )
    elif norm != spec.norm:
        yield Contradiction(
            "coarse_head.norm",
            spec.norm,
            f"the checkpoint's coarse head has {'a' if norm else 'no'} group norm: "
            f"{_plain(norm)} would fit",
        )
    strides = [2**e for e in range(2, 6) if _convolutions_fit(convolutions, e)]
    if strides and spec.common_stride not in strides:
        yield Contradiction(
            "coarse_head.common_stride",
            spec.common_stride,
            f"the checkpoint has {_plain(list(convolutions.values()))} convolutions a level: "
            f"{' or '.join(map(str, strides))} would fit",
        )


def _convolutions_fit(convolutions: Mapping[int, int], exponent: int) -> bool:
    return all(
        level >= exponent and count == max(1, level - exponent)
        for level, count in convolutions.items()
    )


def _point_head(shapes: Shapes, recipe: Recipe) -> Iterator[Contradiction]:
    layers = _count(shapes, re.escape(POINT_HEAD) + r"fc(\d{1,3})\.weight")
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
    fine_channels = _pyramid_channels(shapes) or recipe.fpn.out_channels
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
                f"{_plain(joined)} would fit",
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


def _pyramid_channels(shapes: Shapes) -> int | None:
    levels = _matches(shapes, r"backbone\.fpn_lateral(\d{1,3})\.weight")
    shape = shapes[f"backbone.fpn_lateral{min(levels)}.weight"] if levels else ()
    return shape[0] if shape else None


def _matches(shapes: Shapes, pattern: str) -> set[int]:
    return {int(found[1]) for name in shapes if (found := re.fullmatch(pattern, name))}


def _count(shapes: Shapes, pattern: str) -> int:
    return len(_matches(shapes, pattern))


def _plain(value: object) -> str:
    """A value as TOML writes it, near enough for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value).replace("'", '"')
