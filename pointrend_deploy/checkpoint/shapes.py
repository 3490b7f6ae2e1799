"""Reading classes, backbone and pyramid back from the shapes of a checkpoint's parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pointrend_deploy.recipe.parts import EfficientNetLiteSpec, FPNSpec, Norm, ResNetSpec

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
        return f"`{self.key}` is {toml_value(self.says)}; {self.holds}"


def class_contradictions(
    predicted: int | None, num_classes: int, background: str = ""
) -> Iterator[Contradiction]:
    """Compare the number of class names of a recipe with what the checkpoint predicts.

    Args:
        predicted: classes by the predictor's shape, background not counted; None if it is absent.
        num_classes: names in the recipe.
        background: said after the number, where the predictor has a row for the background.
    """
    if predicted is not None and predicted != num_classes:
        yield Contradiction(
            "classes.names",
            f"{num_classes} names",
            f"the checkpoint predicts {predicted} classes{background}: {predicted} names would fit",
        )


def backbone_contradictions(
    shapes: Shapes, spec: ResNetSpec | EfficientNetLiteSpec
) -> Iterator[Contradiction]:
    """Yield every key of a recipe's ``backbone`` table that the shapes contradict."""
    kind = _backbone_kind(shapes)
    wanted = "resnet" if isinstance(spec, ResNetSpec) else "efficientnet_lite0"
    if kind is not None and kind != wanted:
        yield Contradiction(
            "backbone.kind", wanted, f"the checkpoint's backbone is another: {kind} would fit"
        )
    if not isinstance(spec, ResNetSpec) or kind != "resnet":
        return
    blocks = count_matches(shapes, re.escape(_BOTTOM_UP) + r"res4\.(\d{1,3})\.conv1\.weight")
    depth = _DEPTH_BY_RES4_BLOCKS.get(blocks)
    if depth != spec.depth:
        fits = f"{depth} would fit" if depth else "no depth of a recipe fits"
        yield Contradiction(
            "backbone.depth", spec.depth, f"the checkpoint's res4 has {blocks} blocks: {fits}"
        )
    yield from norm_contradictions(shapes, "backbone", spec.norm, f"{_BOTTOM_UP}res2.0.conv2")
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


def norm_contradictions(
    shapes: Shapes, table: str, says: Norm, convolution: str
) -> Iterator[Contradiction]:
    """Compare a recipe's ``norm`` with what follows a convolution in the checkpoint.

    FrozenBN, BN and SyncBN have the same parameters, and each of them fits the others.

    Args:
        shapes: parameter name to shape.
        table: of the recipe, such as ``fpn``.
        says: the recipe's norm.
        convolution: name of a convolution of that table, without ``.weight``. Nothing is compared
            where the checkpoint does not have it.
    """
    if f"{convolution}.weight" not in shapes:
        return
    fits: tuple[Norm, ...]
    if f"{convolution}.norm.running_mean" in shapes:
        holds, fits = "batch norms", ("BN", "SyncBN", "FrozenBN")
    elif f"{convolution}.norm.weight" in shapes:
        holds, fits = "group norms", ("GN",)
    else:
        holds, fits = "no norms", ("",)
    if says not in fits:
        yield Contradiction(
            f"{table}.norm",
            says,
            f"the checkpoint has {holds} there: {toml_value(fits[0])} would fit",
        )


def _backbone_kind(shapes: Shapes) -> str | None:
    if f"{_BOTTOM_UP}stem.conv1.weight" in shapes:
        return "resnet"
    if f"{_BOTTOM_UP}blocks.0.depthwise.0.weight" in shapes:
        return "efficientnet_lite0"
    return None


def pyramid_contradictions(shapes: Shapes, spec: FPNSpec) -> Iterator[Contradiction]:
    """Yield every key of a recipe's ``fpn`` table that the shapes contradict."""
    levels = numbers_matched(shapes, r"backbone\.fpn_lateral(\d{1,3})\.weight")
    names = [f"res{level}" for level in sorted(levels)]
    if names and names != sorted(spec.in_features):
        yield Contradiction(
            "fpn.in_features",
            list(spec.in_features),
            f"the checkpoint's pyramid has other levels: {toml_value(names)} would fit",
        )
    channels = pyramid_channels(shapes)
    if channels is not None and channels != spec.out_channels:
        yield Contradiction(
            "fpn.out_channels",
            spec.out_channels,
            f"the checkpoint's pyramid has {channels} channels: {channels} would fit",
        )
    for level in sorted(levels)[:1]:
        convolution = f"backbone.fpn_lateral{level}"
        yield from norm_contradictions(shapes, "fpn", spec.norm, convolution)


def pyramid_channels(shapes: Shapes) -> int | None:
    """Channels of the checkpoint's feature pyramid; None where it has no pyramid."""
    levels = numbers_matched(shapes, r"backbone\.fpn_lateral(\d{1,3})\.weight")
    shape = shapes[f"backbone.fpn_lateral{min(levels)}.weight"] if levels else ()
    return shape[0] if shape else None


def numbers_matched(shapes: Shapes, pattern: str) -> set[int]:
    """Return the numbers that the pattern's one group matches among the parameter names."""
    return {int(found[1]) for name in shapes if (found := re.fullmatch(pattern, name))}


def count_matches(shapes: Shapes, pattern: str) -> int:
    """Count the different numbers that the pattern's one group matches among the names."""
    return len(numbers_matched(shapes, pattern))


def toml_value(value: object) -> str:
    """A value as TOML writes it, near enough for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value).replace("'", '"')
