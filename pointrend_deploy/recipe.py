"""Typed, frozen recipes: what a model is, read from TOML.

A recipe is all that is needed, beside the weights, to build a model: the input's colour order and
normalisation, the backbone, the heads and the subdivision. Unknown keys, wrong types and values
that contradict one another are refused, each with the path of the key at fault.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from pointrend_deploy.errors import DeployError

ChannelOrder = Literal["BGR", "RGB"]
Colour = tuple[int, int, int]
Form = TypeVar("Form")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a recipe: frozen, and no key it does not know."""


class InputSpec(_Part, frozen=True):
    """How a picture becomes the network's input.

    Attributes:
        channel_order: order of the three channels the network was trained with.
        pixel_mean: subtracted, in ``channel_order``, from values in 0..255.
        pixel_std: divided by after that.
        size_divisibility: the normalised picture is zero-padded, bottom and right, to a multiple.
    """

    channel_order: ChannelOrder
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    size_divisibility: int = 32


class ClassesSpec(_Part, frozen=True):
    """Names and RGB colours (0..255) of the classes, in the order of the logits' channels.

    ``ignore_label`` is the value in ground-truth label maps that is not evaluated.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    ignore_label: int = 255


class ResNetSpec(_Part, frozen=True, tag_field="kind", tag="resnet"):
    """ResNet / ResNeXt of detectron2 (modeling/backbone/resnet.py); features res2..res5."""

    depth: Literal[50, 101]
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = True
    norm: Literal["FrozenBN", "BN"] = "FrozenBN"


class EfficientNetLiteSpec(_Part, frozen=True, tag_field="kind", tag="efficientnet_lite0"):
    """EfficientNet-Lite0 cut after block 10: features res2, res3, res4 at strides 4, 8, 16."""


class FPNSpec(_Part, frozen=True):
    """Feature pyramid (detectron2 modeling/backbone/fpn.py): p<k> from res<k> of the backbone.

    ``top_level`` adds one level (p6 from p5) by max-pooling with stride 2.
    """

    in_features: tuple[str, ...] = ("res2", "res3", "res4", "res5")
    out_channels: int = 256
    top_level: bool = True


class CoarseHeadSpec(_Part, frozen=True):
    """Semantic FPN head (detectron2 SemSegFPNHead): logits at ``common_stride``."""

    in_features: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    channels: int = 128
    norm: Literal["GN", ""] = "GN"
    common_stride: int = 4


class PointHeadSpec(_Part, frozen=True):
    """Standard point head and its subdivision (detectron2 projects/PointRend).

    Attributes:
        in_features: FPN levels sampled for the fine features, concatenated in this order.
        fc_dim: width of each hidden layer.
        num_fc: number of hidden layers.
        coarse_in_every_layer: coarse logits join every layer's input, not only the first.
        subdivision_steps: doublings from the coarse grid to the network grid.
        subdivision_points: most points recomputed a step; K = min(H*W, this).
    """

    in_features: tuple[str, ...] = ("p2",)
    fc_dim: int = 256
    num_fc: int = 3
    coarse_in_every_layer: bool = False
    subdivision_steps: int = 2
    subdivision_points: int = 8192


class Recipe(_Part, frozen=True, tag_field="task", tag="semantic"):
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


BACKBONE_FEATURES: dict[type[ResNetSpec | EfficientNetLiteSpec], tuple[str, ...]] = {
    ResNetSpec: ("res2", "res3", "res4", "res5"),
    EfficientNetLiteSpec: ("res2", "res3", "res4"),
}
"""Features each backbone offers; ``res<k>`` has stride 2**k."""


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a semantic recipe.

    Args:
        path: a TOML file.

    Raises:
        DeployError: the file is missing or not TOML, has an unknown key, a wrong type or values
            that contradict one another; the message names the key.
    """
    return check_recipe(read_recipe(path, Recipe), str(path))


def read_recipe(path: str | Path, form: type[Form]) -> Form:
    """Read a TOML file as ``form``, unknown keys and wrong types refused by their path.

    Raises:
        DeployError: see :func:`load_recipe`.
    """
    try:
        return msgspec.toml.decode(Path(path).read_bytes(), type=form)
    except OSError as error:
        raise DeployError(
            f"cannot read the recipe {path}: {error.strerror or error}",
            "recipes are the .toml files in export/; see export/README.md",
        ) from error
    except msgspec.ValidationError as error:
        raise DeployError(
            f"recipe {path}: {error}", "see export/README.md for every key"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DeployError(f"recipe {path} is not valid TOML: {error}") from error


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
