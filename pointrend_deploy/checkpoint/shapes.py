"""Reading classes, backbone and pyramid back from the shapes of a checkpoint's parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pointrend_deploy.recipe.parts import EfficientNetLiteSpec, FPNSpec, ResNetSpec
from pointrend_deploy.wording import count_of

Shapes = Mapping[str, tuple[int, ...]]
_BOTTOM_UP = "backbone.bottom_up."
_DEPTH_BY_RES4_BLOCKS = {6: 50, 23: 101}


@dataclass(frozen=True)
class Contradiction:
    """A key of the recipe that the checkpoint contradicts.

    Attributes:
        key: path in the recipe.
        says: the recipe's value.
        holds: what the checkpoint has.
        fits: values of the key that agree with the checkpoint, by how a message shows them. Only
            :func:`~pointrend_deploy.checkpoint.suggestions.verified` decides which are printed.
    """

    key: str
    says: object
    holds: str
    fits: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        said = f"`{self.key}` is {toml_value(self.says)}; {self.holds}"
        return f"{said}: {' or '.join(self.fits)} would fit" if self.fits else said


def value(*values: object) -> dict[str, object]:
    """Values for ``Contradiction.fits``, shown as TOML writes them."""
    return {toml_value(each): each for each in values}


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
            f"the checkpoint predicts {predicted} classes{background}",
            {count_of(predicted, "name"): [f"class {n}" for n in range(min(predicted, 99_999))]},
        )


def backbone_contradictions(
    shapes: Shapes, spec: ResNetSpec | EfficientNetLiteSpec
) -> Iterator[Contradiction]:
    """Yield every key of a recipe's ``backbone`` table that the shapes contradict."""
    kind = _backbone_kind(shapes)
    wanted = "resnet" if isinstance(spec, ResNetSpec) else "efficientnet_lite0"
    if kind is not None and kind != wanted:
        yield Contradiction(
            "backbone.kind", wanted, "the checkpoint's backbone is another", {kind: kind}
        )
    if not isinstance(spec, ResNetSpec) or kind != "resnet":
        return
    blocks = count_matches(shapes, re.escape(_BOTTOM_UP) + r"res4\.(\d{1,3})\.conv1\.weight")
    depth = _DEPTH_BY_RES4_BLOCKS.get(blocks)
    if depth != spec.depth:
        yield Contradiction(
            "backbone.depth",
            spec.depth,
            f"the checkpoint's res4 has {count_of(blocks, 'block')}",
            value(depth or 0),
        )
    conv2 = shapes.get(f"{_BOTTOM_UP}res2.0.conv2.weight")
    if conv2 is None or len(conv2) != 4 or 0 in conv2:
        return
    (groups, rest), width = divmod(conv2[0], conv2[1]), conv2[1]
    if rest:
        return  # no grouped convolution has this shape; it is listed with its shape
    read_back: tuple[tuple[str, int, int], ...] = (
        ("backbone.groups", spec.groups, groups),
        ("backbone.width_per_group", spec.width_per_group, width),
    )
    for key, says, held in read_back:
        if says != held:
            found = f"the checkpoint's 3x3 in res2 has {groups} x {width} channels"
            yield Contradiction(key, says, found, value(held))


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
            "the checkpoint's pyramid has other levels",
            value(names),
        )
    channels = pyramid_channels(shapes)
    if channels is not None and channels != spec.out_channels:
        yield Contradiction(
            "fpn.out_channels",
            spec.out_channels,
            f"the checkpoint's pyramid has {count_of(channels, 'channel')}",
            value(channels),
        )


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
