"""Checks that recipes of every task share: each finds the keys whose values cannot be right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Protocol

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.faults import quoted
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
POINTS: Final = 16384**2
"""Largest number of points in a step: all cells of the largest grid that exports."""
EVERY_KEY: Final = (
    "`pointrend-deploy recipes --show my_model` prints every key with its meaning (instance "
    "models: my_instance_model)"
)

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
    """Raise DeployError where keys are at fault; it names all of them.

    Args:
        found: keys at fault, each with what is wrong.
        where: the file or folder that the recipe came from.
    """
    lines = [f"`{key}`: {message}" for key, message in dict.fromkeys(found)]
    if not lines:
        return
    if len(lines) == 1:
        raise DeployError(f"{where}: {lines[0]}", f"correct that key of the recipe; {EVERY_KEY}")
    listed = "".join(f"\n  - {line}" for line in lines)
    raise DeployError(
        f"{where}: {len(lines)} keys are wrong:{listed}",
        f"correct those keys of the recipe; {EVERY_KEY}",
    )


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
        (all(0 < number < math.inf for number in numbers), key, "must be positive numbers")
    ) or wrong(
        (
            all(1 / MOST <= number <= MOST for number in numbers),
            key,
            f"must lie between {1 / MOST:.1g} and {MOST}",
        )
    )


def check_name_and_input(recipe: CommonRecipe) -> Found:
    """Check the name, and the numbers that normalise a picture."""
    spec = recipe.input
    mean = "input.pixel_mean"
    inside = all(-MOST <= m <= MOST for m in spec.pixel_mean)
    found = wrong((bool(recipe.name.strip()), "name", "must not be empty"))
    found += wrong(
        (all(map(math.isfinite, spec.pixel_mean)), mean, "must be finite numbers")
    ) or wrong((inside, mean, f"must lie between -{MOST} and {MOST}"))
    return found + positive("input.pixel_std", spec.pixel_std)


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
    multiple = recipe.input.size_divisibility
    levels = levels_of(recipe)
    deepest = 2 ** int(levels[-1][1:]) if levels else 1
    found = wrong(
        (
            bool(levels),
            "fpn.in_features",
            _features_wanted(recipe),
        ),
        (
            1 <= multiple <= MOST and multiple % deepest == 0,
            "input.size_divisibility",
            f"must be a multiple of {deepest}, the deepest feature's stride, up to {MOST}"
            if levels
            else f"must be 1 to {MOST}",
        ),
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


def _features_wanted(recipe: CommonRecipe) -> str:
    """Say which features the backbone has, and which of them a pyramid can take."""
    offered, taken = BACKBONE_FEATURES[type(recipe.backbone)], recipe.fpn.in_features
    kind = type(recipe.backbone).__struct_config__.tag
    absent = [name for name in taken if name not in offered]
    lacking = f", not {', '.join(absent)}" if absent else ""
    return (
        f"the backbone {kind} has the features {', '.join(offered)}{lacking}; give the last of "
        f"them, in this order, such as {quoted(list(offered))}"
    )


def check_groups(key: str, norm: str, channels: int) -> Found:
    """Check that the groups of a GroupNorm divide the channels it normalises."""
    message = f"GroupNorm has {GROUPS} groups: {channels} channels are no multiple of {GROUPS}"
    return wrong((norm != "GN" or channels % GROUPS == 0, key, message))


def levels_of(recipe: CommonRecipe) -> tuple[str, ...]:
    """Return the levels that the pyramid makes of the backbone's features: p2 of res2.

    Empty where ``fpn.in_features`` are not the last features of the backbone, in order.
    """
    offered, taken = BACKBONE_FEATURES[type(recipe.backbone)], recipe.fpn.in_features
    if not taken or taken != offered[-len(taken) :]:
        return ()
    return tuple("p" + name[3:] for name in taken)


def check_levels(key: str, levels: tuple[str, ...], pyramid: tuple[str, ...]) -> Found:
    """Check that a head takes at least one level of the pyramid, and none twice.

    An empty ``pyramid`` stands for one that is wrong itself; nothing is said of its levels then.
    """
    if not pyramid:
        return []
    good = bool(levels) and set(levels) <= set(pyramid) and len(set(levels)) == len(levels)
    return wrong((good, key, f"must be chosen from {list(pyramid)}, each once"))
