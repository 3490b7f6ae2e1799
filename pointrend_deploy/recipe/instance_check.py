"""Reading an instance recipe, and refusing one whose values contradict one another."""

from __future__ import annotations

from pathlib import Path
from typing import Final

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
    positive,
    refuse,
    wrong,
)
from pointrend_deploy.recipe.files import find_recipe, read_recipe
from pointrend_deploy.recipe.instance import (
    MAX_SAMPLING,
    InstanceRecipe,
    PerLevel,
    StandardMaskHeadSpec,
    rows,
    subdivision_start,
)

LARGEST_MASK: Final = 4096
"""Largest side of a mask, in cells; that of PointRend on COCO is 224."""


def load_instance_recipe(path: str | Path) -> InstanceRecipe:
    """Read and check a recipe whose ``task`` is ``instance``.

    Args:
        path: a TOML file, or the name of one of this project's recipes.

    Raises:
        DeployError: the file is missing or not TOML, has unknown keys, wrong types or values that
            contradict one another; the message names all such keys.
    """
    path = find_recipe(path)
    return check_instance_recipe(read_recipe(path, InstanceRecipe, value_faults), str(path))


def check_instance_recipe(recipe: InstanceRecipe, where: str = "recipe") -> InstanceRecipe:
    """Refuse a recipe whose values contradict one another; return it otherwise.

    Raises:
        DeployError: naming every such key and the value that would fit.
    """
    refuse(value_faults(recipe), where)
    return recipe


def value_faults(recipe: InstanceRecipe) -> Found:
    """Find the keys whose values cannot be right, or contradict those of other keys."""
    found = check_name_and_input(recipe) + _classes(recipe) + check_pyramid(recipe)
    if levels_of(recipe):
        found += _levels(recipe)
    return found + _proposals(recipe) + _boxes(recipe) + _masks(recipe)


def _classes(recipe: InstanceRecipe) -> Found:
    count, ids = recipe.num_classes, recipe.classes.category_ids
    found = wrong((count >= 1, "classes.names", "at least one class is needed"))
    found += check_classes(recipe.classes)
    return found + wrong(
        (
            len(ids) in (0, count) and len(set(ids)) == len(ids),
            "classes.category_ids",
            f"give {count} different ids, one a class, or none",
        ),
    )


def _levels(recipe: InstanceRecipe) -> Found:
    """Check which levels of the pyramid each head takes; the pyramid is known to be sound."""
    pyramid = recipe.pyramid
    found = check_levels("rpn.in_features", recipe.rpn.in_features, pyramid)
    found += check_levels("mask_head.in_features", recipe.mask_head.in_features, pyramid)
    if recipe.point_head:
        found += check_levels("point_head.in_features", recipe.point_head.in_features, pyramid)
    pooled = {"box_head.in_features": recipe.box_head.in_features}
    if isinstance(recipe.mask_head, StandardMaskHeadSpec):
        pooled["mask_head.in_features"] = recipe.mask_head.in_features
    for key, names in pooled.items():
        first = pyramid.index(names[0]) if names and names[0] in pyramid else len(pyramid)
        good = bool(names) and names == pyramid[first : first + len(names)]
        message = f"must be neighbouring levels of {list(pyramid)}, finest first"
        found += wrong((good, key, message))
    return found


def _proposals(recipe: InstanceRecipe) -> Found:
    spec = recipe.rpn
    levels = len(spec.in_features)
    found = _per_level("rpn.anchor_sizes", spec.anchor_sizes, levels)
    found += _per_level("rpn.aspect_ratios", spec.aspect_ratios, levels)
    if not found:
        products = [len(sizes) * len(ratios) for sizes, ratios in spec.anchors]
        message = f"the levels share one head, but have {products} sizes times aspect ratios"
        found += wrong((len(set(products)) <= 1, "rpn.anchor_sizes", message))
    found += wrong(
        (0 <= spec.anchor_offset < 1, "rpn.anchor_offset", "must be in [0, 1)"),
        (0 < spec.nms_threshold <= 1, "rpn.nms_threshold", "must be in (0, 1]"),
    )
    found += counts("rpn", MOST_LAYERS, num_conv=spec.num_conv)
    return found + counts("rpn", pre_nms_topk=spec.pre_nms_topk, post_nms_topk=spec.post_nms_topk)


def _per_level(key: str, values: PerLevel, levels: int) -> Found:
    """Check a key that has a row for each level, or one row or plain numbers for all of them."""
    found = rows(values, levels)
    plain = [not isinstance(value, tuple) for value in values]
    return wrong(
        (
            len(found) == levels and all(found) and len(set(plain)) <= 1,
            key,
            f"{levels} levels need {levels} rows, each with at least one number; one row, or "
            "numbers without rows, are for every level",
        ),
    ) + positive(key, (value for row in found for value in row))


def _sampling(table: str, ratio: int) -> tuple[bool, str, str]:
    message = f"must be 0 (adaptive) to {MAX_SAMPLING}, not {ratio}"
    return 0 <= ratio <= MAX_SAMPLING, f"{table}.sampling_ratio", message


def _boxes(recipe: InstanceRecipe) -> Found:
    spec = recipe.box_head
    found = positive("box_head.box_weights", spec.box_weights) + wrong(
        (0 <= spec.score_threshold < 1, "box_head.score_threshold", "must be in [0, 1)"),
        (0 < spec.nms_threshold <= 1, "box_head.nms_threshold", "must be in (0, 1]"),
        _sampling("box_head", spec.sampling_ratio),
        (
            0 <= spec.num_conv <= MOST_LAYERS,
            "box_head.num_conv",
            f"must be 0 to {MOST_LAYERS}, not {spec.num_conv}",
        ),
        (
            spec.num_fc >= (0 if spec.num_conv > 0 else 1),
            "box_head.num_fc",
            f"must be at least 1, or 0 after a convolution, not {spec.num_fc}",
        ),
        (
            spec.num_conv > 0 or not spec.norm,
            "box_head.norm",
            'stands after convolutions, and num_conv is 0: leave it out or set it to ""',
        ),
    )
    found += wrong(
        (spec.num_fc <= MOST_LAYERS, "box_head.num_fc", f"must be at most {MOST_LAYERS}"),
    )
    if spec.num_conv > 0:
        found += check_groups("box_head.channels", spec.norm, spec.channels)
    return found + counts(
        "box_head",
        pooler_resolution=spec.pooler_resolution,
        channels=spec.channels,
        fc_dim=spec.fc_dim,
        detections=spec.detections,
    )


def _masks(recipe: InstanceRecipe) -> Found:
    spec, points = recipe.mask_head, recipe.point_head
    found = counts("mask_head", pooler_resolution=spec.pooler_resolution, channels=spec.channels)
    if isinstance(spec, StandardMaskHeadSpec):
        found += counts("mask_head", MOST_LAYERS, num_conv=spec.num_conv)
        found += _side("mask_head.pooler_resolution", 2 * spec.pooler_resolution)
        found += wrong(_sampling("mask_head", spec.sampling_ratio))
        found += check_groups("mask_head.channels", spec.norm, spec.channels)
        return found + wrong(
            (points is None, "point_head", "the standard mask head has none; leave the table out")
        )
    found += counts(
        "mask_head", fc_dim=spec.fc_dim, output_resolution=spec.output_resolution
    ) + counts("mask_head", MOST_LAYERS, num_fc=spec.num_fc)
    found += wrong(
        (
            spec.pooler_resolution % 2 == 0,
            "mask_head.pooler_resolution",
            "the head halves it: must be even",
        )
    )
    if points is None:
        return [*found, ("point_head", "a mask head of kind pointrend needs this table")]
    found += counts("point_head", fc_dim=points.fc_dim)
    found += counts("point_head", POINTS, subdivision_points=points.subdivision_points)
    found += counts("point_head", MOST_LAYERS, num_fc=points.num_fc)
    side, steps = subdivision_start(
        max(1, spec.output_resolution), points.subdivision_steps, points.subdivision_points
    )
    skipped = points.subdivision_steps - steps
    message = f"{points.subdivision_points} points fill the {side}x{side} grid: at least {skipped}"
    found += wrong((steps >= 0, "point_head.subdivision_steps", message))
    doublings = min(max(steps, 0), LARGEST_MASK.bit_length())
    return found + _side("point_head.subdivision_steps", side * 2**doublings)


def _side(key: str, side: int) -> Found:
    """Check the side of a mask that a key leads to."""
    message = f"masks would have more than {LARGEST_MASK}x{LARGEST_MASK} pixels"
    return wrong((side <= LARGEST_MASK, key, message))
