"""Recipes of semantic models: a feature pyramid, a coarse head and PointRend's point head.

A recipe is all that is needed, beside the weights, to build a model: the input's colour order and
normalisation, the backbone, the heads and the subdivision. Unknown keys, wrong types and values
that contradict one another are refused, each with the path of the key at fault.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pointrend_deploy.recipe.checks import (
    MOST_LAYERS,
    POINTS,
    Found,
    check_classes,
    check_groups,
    check_levels,
    check_name_and_input,
    check_pyramid,
    counts,
    levels_of,
    refuse,
    wrong,
)
from pointrend_deploy.recipe.files import find_recipe, read_recipe
from pointrend_deploy.recipe.parts import (
    ClassesSpec,
    EfficientNetLiteSpec,
    FPNSpec,
    InputSpec,
    Norm,
    Part,
    PointHeadSpec,
    ResNetSpec,
)


class CoarseHeadSpec(Part, frozen=True):
    """Semantic FPN head (detectron2 SemSegFPNHead): logits at ``common_stride``.

    ``norm`` stands after every convolution but the predictor.
    """

    in_features: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    channels: int = 128
    norm: Norm = "GN"
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
        path: a TOML file, or the name of one of this project's recipes.

    Raises:
        DeployError: the file is missing or not TOML, has unknown keys, wrong types or values that
            contradict one another; the message names all such keys.
    """
    path = find_recipe(path)
    return check_recipe(read_recipe(path, Recipe, value_faults), str(path))


def check_recipe(recipe: Recipe, where: str = "recipe") -> Recipe:
    """Refuse a recipe whose values contradict one another; return it otherwise.

    Raises:
        DeployError: naming every such key and the value that would fit.
    """
    refuse(value_faults(recipe), where)
    return recipe


def value_faults(recipe: Recipe) -> Found:
    """Find the keys whose values cannot be right, or contradict those of other keys."""
    count = recipe.num_classes
    message = "2 to 256 classes fit a uint8 label map"
    found = check_name_and_input(recipe) + wrong((2 <= count <= 256, "classes.names", message))
    found += check_classes(recipe.classes) + check_pyramid(recipe)
    return found + _heads(recipe, levels_of(recipe))


def _heads(recipe: Recipe, pyramid: tuple[str, ...]) -> Found:
    """Check the two heads; an empty ``pyramid`` stands for one that is wrong itself."""
    coarse, points = recipe.coarse_head, recipe.point_head
    found = check_levels("coarse_head.in_features", coarse.in_features, pyramid)
    found += counts("coarse_head", channels=coarse.channels)
    stride = coarse.common_stride
    finest = min((2 ** int(name[1:]) for name in coarse.in_features if name in pyramid), default=32)
    strides = stride in (4, 8, 16, 32)
    found += check_groups("coarse_head.channels", coarse.norm, coarse.channels)
    found += wrong(
        (
            strides and stride <= finest,
            "coarse_head.common_stride",
            "must be 4, 8, 16 or 32 and no larger than the stride of any input feature",
        ),
    )
    if points is None:
        return found
    found += check_levels("point_head.in_features", points.in_features, pyramid)
    found += counts("point_head", fc_dim=points.fc_dim)
    found += counts("point_head", MOST_LAYERS, num_fc=points.num_fc)
    found += counts("point_head", POINTS, subdivision_points=points.subdivision_points)
    steps = points.subdivision_steps
    message = (
        f"{steps} doublings of logits at stride {stride} do not end at the network grid; "
        f"{stride.bit_length() - 1} would"
    )
    ends = not strides or steps == stride.bit_length() - 1
    return found + wrong((ends, "point_head.subdivision_steps", message))
