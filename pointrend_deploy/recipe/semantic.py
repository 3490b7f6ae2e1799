"""Typed, frozen recipes: what a model is, read from TOML.

A recipe is all that is needed, beside the weights, to build a model: the input's colour order and
normalisation, the backbone, the heads and the subdivision. Unknown keys, wrong types and values
that contradict one another are refused, each with the path of the key at fault.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.parts import (
    BACKBONE_FEATURES,
    ClassesSpec,
    EfficientNetLiteSpec,
    FPNSpec,
    InputSpec,
    Part,
    PointHeadSpec,
    ResNetSpec,
    read_recipe,
)


class CoarseHeadSpec(Part, frozen=True):
    """Semantic FPN head (detectron2 SemSegFPNHead): logits at ``common_stride``."""

    in_features: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    channels: int = 128
    norm: Literal["GN", ""] = "GN"
    common_stride: int = 4


class Recipe(Part, frozen=True, tag_field="task", tag="semantic"):
    """A semantic model as a user names it; ``point_head`` is absent for the coarse head alone."""

    name: str
    input: InputSpec
    classes: ClassesSpec
    backbone: ResNetSpec | EfficientNetLiteSpec
    fpn: FPNSpec
    coarse_head: CoarseHeadSpec
    point_head: PointHeadSpec | None = None
    description: str = ""

    @property
    def task(self) -> Literal["semantic"]:
        """The recipe's ``task``."""
        return "semantic"

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.classes.names)


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a semantic recipe.

    Args:
        path: a TOML file.

    Raises:
        DeployError: the file is missing or not TOML, has an unknown key, a wrong type or values
            that contradict one another; the message names the key.
    """
    return check_recipe(read_recipe(path, Recipe), str(path))


def check_recipe(recipe: Recipe, where: str = "recipe") -> Recipe:
    """Refuse a recipe whose values contradict one another; return it otherwise.

    Raises:
        DeployError: naming the key and the value that would fit.
    """
    for key, message in _contradictions(recipe):
        raise DeployError(f"{where}: `{key}`: {message}", "correct that key of the recipe")
    return recipe


def _contradictions(recipe: Recipe) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def need(good: bool, key: str, message: str) -> None:
        if not good:
            found.append((key, message))

    spec, classes = recipe.input, recipe.classes
    need(bool(recipe.name.strip()), "name", "must not be empty")
    need(all(map(math.isfinite, spec.pixel_mean)), "input.pixel_mean", "must be finite numbers")
    need(
        all(math.isfinite(s) and s > 0 for s in spec.pixel_std),
        "input.pixel_std",
        "must be positive numbers",
    )
    need(2 <= recipe.num_classes <= 256, "classes.names", "2 to 256 classes fit a uint8 label map")
    need(len(set(classes.names)) == recipe.num_classes, "classes.names", "names must differ")
    need(
        len(classes.colours) in (0, recipe.num_classes),
        "classes.colours",
        f"{len(classes.colours)} colours for {recipe.num_classes} names; give one a class, or none",
    )
    need(
        all(0 <= v <= 255 for c in classes.colours for v in c),
        "classes.colours",
        "values run from 0 to 255",
    )
    offered = BACKBONE_FEATURES[type(recipe.backbone)]
    levels = recipe.fpn.in_features
    need(
        bool(levels) and levels == offered[-len(levels) :],
        "fpn.in_features",
        f"must be the last features of the backbone, in order, such as {list(offered)}",
    )
    pyramid = tuple("p" + name[3:] for name in levels)
    for key, asked in (
        ("coarse_head.in_features", recipe.coarse_head.in_features),
        ("point_head.in_features", recipe.point_head.in_features if recipe.point_head else ("p2",)),
    ):
        need(
            bool(asked) and set(asked) <= set(pyramid) and len(set(asked)) == len(asked),
            key,
            f"must be chosen from {list(pyramid)}, each once",
        )
    positive = {
        "fpn.out_channels": recipe.fpn.out_channels,
        "coarse_head.channels": recipe.coarse_head.channels,
    }
    if isinstance(recipe.backbone, ResNetSpec):
        positive["backbone.groups"] = recipe.backbone.groups
        positive["backbone.width_per_group"] = recipe.backbone.width_per_group
    if recipe.point_head:
        positive["point_head.fc_dim"] = recipe.point_head.fc_dim
        positive["point_head.num_fc"] = recipe.point_head.num_fc
        positive["point_head.subdivision_steps"] = recipe.point_head.subdivision_steps
        positive["point_head.subdivision_points"] = recipe.point_head.subdivision_points
    for key, value in positive.items():
        need(value >= 1, key, f"must be at least 1, not {value}")
    need(
        recipe.coarse_head.norm != "GN" or recipe.coarse_head.channels % 32 == 0,
        "coarse_head.channels",
        "GroupNorm has 32 groups: must be a multiple of 32",
    )
    stride = recipe.coarse_head.common_stride
    need(
        stride in (4, 8, 16, 32) and _fits_common_stride(recipe.coarse_head.in_features, stride),
        "coarse_head.common_stride",
        "must be 4, 8, 16 or 32 and no larger than the stride of any input feature",
    )
    if recipe.point_head:
        steps = recipe.point_head.subdivision_steps
        need(
            2**steps == stride,
            "point_head.subdivision_steps",
            f"{steps} doublings of logits at stride {stride} do not end at the network grid; "
            f"{stride.bit_length() - 1} would",
        )
    deepest = max((int(name[3:]) for name in levels), default=5)
    need(
        spec.size_divisibility >= 1 and spec.size_divisibility % 2**deepest == 0,
        "input.size_divisibility",
        f"must be a multiple of {2**deepest}, the deepest feature's stride",
    )
    return found


def _fits_common_stride(in_features: tuple[str, ...], stride: int) -> bool:
    return all(name[1:].isdigit() and 2 ** int(name[1:]) >= stride for name in in_features)
