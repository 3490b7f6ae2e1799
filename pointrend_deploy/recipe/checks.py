"""Checks that recipes of every task share: each finds the keys whose values cannot be right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Protocol

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.parts import (
    BACKBONE_FEATURES,
    GROUPS,
    Colour,
    EfficientNetLiteSpec,
    FPNSpec,
    InputSpec,
    ResNetSpec,
)

Found = list[tuple[str, str]]
"""Keys at fault, each with what is wrong with its value."""

MOST: Final = 2**20
"""Largest count or width that a recipe may name: more is a slip, and would not fit in memory."""
MOST_GROUPS: Final = 4096
"""Most groups of a backbone's layer, and most channels in each."""
MOST_LAYERS: Final = 64
"""Most layers of a head that a recipe may name."""


class Classes(Protocol):
    """The table ``classes`` of any recipe."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def colours(self) -> tuple[Colour, ...]:
        """RGB colours of the classes, 0..255; empty where the recipe gives none."""


class CommonRecipe(Protocol):
    """The keys that recipes of every task have."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def input(self) -> InputSpec:
        """How a picture becomes the network's input."""

    @property
    def classes(self) -> Classes:
        """The classes."""

    @property
    def backbone(self) -> ResNetSpec | EfficientNetLiteSpec:
        """The backbone."""

    @property
    def fpn(self) -> FPNSpec:
        """The feature pyramid."""


def refuse(found: Iterable[tuple[str, str]], where: str) -> None:
    """Raise DeployError for the first key at fault, if there is one.

    Args:
        found: keys at fault, each with what is wrong.
        where: the file or folder that the recipe came from.
    """
    for key, message in found:
        raise DeployError(f"{where}: `{key}`: {message}", "correct that key of the recipe")


def wrong(*checks: tuple[bool, str, str]) -> Found:
    """Choose among checks (good, key, message) those that are not good."""
    return [(key, message) for good, key, message in checks if not good]


def counts(table: str, most: int = MOST, **values: int) -> Found:
    """Find the keys of a table whose values are below 1, or above what any model has."""
    return [
        (f"{table}.{key}", f"must be at {'least 1' if value < 1 else f'most {most}'}, not {value}")
        for key, value in values.items()
        if not 1 <= value <= most
    ]


def positive(key: str, values: Iterable[float]) -> Found:
    """Check numbers that scale others: above 0, and float32 can divide and multiply by them."""
    numbers = tuple(values)
    return wrong(
        (all(0 < number < math.inf for number in numbers), key, "must be positive numbers"),
        (
            all(1 / MOST <= number <= MOST for number in numbers),
            key,
            f"must lie between {1 / MOST:.1g} and {MOST}",
        ),
    )


def check_name_and_input(recipe: CommonRecipe) -> Found:
    """Check the name, and the numbers that normalise a picture."""
    spec = recipe.input
    return wrong(
        (bool(recipe.name.strip()), "name", "must not be empty"),
        (all(map(math.isfinite, spec.pixel_mean)), "input.pixel_mean", "must be finite numbers"),
        (
            all(-MOST <= m <= MOST for m in spec.pixel_mean),
            "input.pixel_mean",
            f"must lie between -{MOST} and {MOST}",
        ),
    ) + positive("input.pixel_std", spec.pixel_std)


def check_classes(classes: Classes) -> Found:
    """Check that names differ, and that there is a colour for each or none."""
    count = len(classes.names)
    return wrong(
        (len(set(classes.names)) == count, "classes.names", "names must differ"),
        (
            len(classes.colours) in (0, count),
            "classes.colours",
            f"{len(classes.colours)} colours for {count} names; give one a class, or none",
        ),
        (
            all(0 <= v <= 255 for c in classes.colours for v in c),
            "classes.colours",
            "values run from 0 to 255",
        ),
    )


def check_pyramid(recipe: CommonRecipe) -> Found:
    """Check the backbone, the levels the pyramid takes from it, and the padding they need."""
    offered = BACKBONE_FEATURES[type(recipe.backbone)]
    levels = recipe.fpn.in_features
    if not levels or levels != offered[-len(levels) :]:
        message = f"must be the last features of the backbone, in order, such as {list(offered)}"
        return [("fpn.in_features", message)]
    deepest = 2 ** int(levels[-1][3:])
    multiple = recipe.input.size_divisibility
    found = wrong(
        (
            1 <= multiple <= MOST and multiple % deepest == 0,
            "input.size_divisibility",
            f"must be a multiple of {deepest}, the deepest feature's stride, up to {MOST}",
        )
    )
    found += counts("fpn", out_channels=recipe.fpn.out_channels)
    found += check_groups("fpn.out_channels", recipe.fpn.norm, recipe.fpn.out_channels)
    if isinstance(recipe.backbone, ResNetSpec):
        width = recipe.backbone.groups * recipe.backbone.width_per_group
        found += check_groups("backbone.width_per_group", recipe.backbone.norm, width)
        found += counts(
            "backbone",
            MOST_GROUPS,
            groups=recipe.backbone.groups,
            width_per_group=recipe.backbone.width_per_group,
        )
    return found


def check_groups(key: str, norm: str, channels: int) -> Found:
    """Check that the groups of a GroupNorm divide the channels it normalises."""
    message = f"GroupNorm has {GROUPS} groups: {channels} channels are no multiple of {GROUPS}"
    return wrong((norm != "GN" or channels % GROUPS == 0, key, message))


def check_levels(key: str, levels: tuple[str, ...], pyramid: tuple[str, ...]) -> Found:
    """Check that a head takes at least one level of the pyramid, and none twice."""
    good = bool(levels) and set(levels) <= set(pyramid) and len(set(levels)) == len(levels)
    return wrong((good, key, f"must be chosen from {list(pyramid)}, each once"))
