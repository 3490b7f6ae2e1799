"""What of a recipe no checkpoint tells: those values are the recipe's word alone.

Every key of a recipe stands here unless it is read back from the checkpoint, so that a key that
is new to recipes counts as not checked until a check of it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from pointrend_deploy.bundle.records import NotChecked
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.semantic import Recipe

READ_BACK = frozenset(
    {
        *("task", "backbone.kind", "backbone.depth", "backbone.groups"),
        *("backbone.width_per_group", "backbone.norm"),
        *("fpn.in_features", "fpn.out_channels", "fpn.norm"),
        *("coarse_head.in_features", "coarse_head.channels", "coarse_head.norm"),
        *("coarse_head.common_stride",),
        *("rpn.num_conv",),
        *("box_head.pooler_resolution", "box_head.num_conv", "box_head.channels", "box_head.norm"),
        *("box_head.fc_dim", "box_head.num_fc", "box_head.class_agnostic"),
        *("mask_head.kind", "mask_head.channels", "mask_head.num_conv", "mask_head.norm"),
        *("mask_head.class_agnostic", "mask_head.fc_dim", "mask_head.num_fc"),
        *("mask_head.output_resolution",),
        *("point_head.fc_dim", "point_head.num_fc", "point_head.coarse_in_every_layer"),
        *("point_head.class_agnostic",),
    }
)
"""Keys that the names and shapes of a checkpoint's tensors tell."""

_NO_PART_OF_THE_MODEL = {
    *("name", "description", "classes.colours", "classes.category_ids", "classes.ignore_label"),
}
_FIRST = (
    *("input.channel_order", "input.pixel_mean", "input.pixel_std", "backbone.stride_in_1x1"),
    *("rpn.anchor_sizes", "rpn.aspect_ratios", "box_head.box_weights", "box_head.sampling_ratio"),
    *("mask_head.pooler_resolution",),
)
"""Keys whose wrong value costs most, shown first."""
_WHY = {
    "classes.names": "their number is checked, their order is not",
    "point_head.in_features": "their number is checked, which they are is not",
    "rpn.anchor_sizes": "the number of anchors is checked, their sizes are not",
    "rpn.aspect_ratios": "the number of anchors is checked, their shapes are not",
    "backbone.norm": "norms without statistics: GN and a folded FrozenBN have the same names",
}


def not_checked(
    recipe: Recipe | InstanceRecipe, confirmed: Collection[str] = (), doubtful: Collection[str] = ()
) -> tuple[NotChecked, ...]:
    """List the keys of a recipe whose values nothing in the checkpoint was compared with.

    Args:
        recipe: of any task.
        confirmed: keys that this checkpoint tells beyond names and shapes.
        doubtful: keys that names and shapes usually tell, and those of this checkpoint do not.

    Returns:
        Those whose wrong value costs most first, then the recipe's order.
    """
    read = (READ_BACK | _read_of_this(recipe) | set(confirmed)) - set(doubtful)
    keys = {
        key: value
        for key, value in _keys(msgspec.json.decode(msgspec.json.encode(recipe)))
        if key not in read and key not in _NO_PART_OF_THE_MODEL
    }
    order = sorted(keys, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    return tuple(NotChecked(key=key, value=keys[key], why=_WHY.get(key, "")) for key in order)


def _read_of_this(recipe: Recipe | InstanceRecipe) -> set[str]:
    """Keys that are read back from models of one kind only."""
    if isinstance(recipe, Recipe):
        steps = {"point_head.subdivision_steps"}  # follow from coarse_head.common_stride
        return steps | {"fpn.top_level"}  # of no effect: no head of a semantic model reads it
    pointrend = recipe.point_head is not None
    return {"mask_head.pooler_resolution"} if pointrend else set()


def _keys(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{path}{name}.")
        elif value is not None:
            yield path + name, value
