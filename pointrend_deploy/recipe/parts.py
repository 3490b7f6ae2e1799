"""The tables that recipes of every task share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

ChannelOrder = Literal["BGR", "RGB"]
Colour = tuple[int, int, int]
Norm = Literal["", "FrozenBN", "BN", "SyncBN", "GN"]
"""Normalisation after a convolution (detectron2 layers/batch_norm.py, ``get_norm``).

``""`` is none: the convolution has a bias in its place. ``FrozenBN``, ``BN`` and ``SyncBN`` differ
in training only. ``GN`` has :data:`GROUPS` groups.
"""
GROUPS = 32
"""Groups of every GroupNorm in detectron2."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a recipe: frozen; unknown keys are refused."""


class InputSpec(Part, frozen=True):
    """How a picture becomes the network's input.

    Attributes:
        channel_order: order of the three channels that the network was trained with.
        pixel_mean: subtracted from values in 0..255, in ``channel_order``.
        pixel_std: the divisor after that, in ``channel_order``.
        size_divisibility: the normalised picture is zero-padded at the bottom and right until
            height and width are multiples of it.
    """

    channel_order: ChannelOrder
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    size_divisibility: int = 32


class ClassesSpec(Part, frozen=True):
    """Names and RGB colours (0..255) of the classes, in the order of the logits' channels.

    ``ignore_label`` is the value in ground-truth label maps that is not evaluated.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    ignore_label: int = 255


class ResNetSpec(Part, frozen=True, tag_field="kind", tag="resnet"):
    """ResNet / ResNeXt of detectron2 (modeling/backbone/resnet.py); features res2..res5.

    ``norm`` stands after every convolution, that of the stem too; none has a bias.
    """

    depth: Literal[50, 101]
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = True
    norm: Literal["FrozenBN", "BN", "SyncBN", "GN"] = "FrozenBN"


class EfficientNetLiteSpec(Part, frozen=True, tag_field="kind", tag="efficientnet_lite0"):
    """EfficientNet-Lite0 cut after block 10: features res2, res3, res4 at strides 4, 8, 16."""


class FPNSpec(Part, frozen=True):
    """Feature pyramid (detectron2 modeling/backbone/fpn.py): p<k> from res<k> of the backbone.

    ``top_level`` adds one level (p6 from p5) by max-pooling with stride 2. ``norm`` stands after
    every lateral and every output convolution.
    """

    in_features: tuple[str, ...] = ("res2", "res3", "res4", "res5")
    out_channels: int = 256
    top_level: bool = True
    norm: Norm = ""


class PointHeadSpec(Part, frozen=True):
    """Standard point head and its subdivision (detectron2 projects/PointRend).

    Attributes:
        in_features: FPN levels sampled for the fine features, concatenated in this order.
        fc_dim: width of each hidden layer.
        num_fc: number of hidden layers.
        coarse_in_every_layer: coarse logits join every layer's input, not only the first.
        subdivision_steps: doublings from the coarse grid to the network grid.
        subdivision_points: largest number of points recomputed in a step; K = min(H*W, this).
    """

    in_features: tuple[str, ...] = ("p2",)
    fc_dim: int = 256
    num_fc: int = 3
    coarse_in_every_layer: bool = False
    subdivision_steps: int = 2
    subdivision_points: int = 8192


BACKBONE_FEATURES: dict[type[ResNetSpec | EfficientNetLiteSpec], tuple[str, ...]] = {
    ResNetSpec: ("res2", "res3", "res4", "res5"),
    EfficientNetLiteSpec: ("res2", "res3", "res4"),
}
"""Features of each backbone; ``res<k>`` has stride 2**k."""


LATER_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "fpn": ("norm",),
    "rpn": ("num_conv",),
    "box_head": ("sampling_ratio", "num_conv", "channels", "norm", "class_scores"),
    "mask_head": ("sampling_ratio", "norm"),
}
"""By table, keys that recipes did not have when the first manifests were written.

A manifest leaves them out where they have their defaults: a bundle that needs none of them reads
the same in versions that do not know them.
"""
