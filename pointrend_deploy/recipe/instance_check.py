"""Reading an instance recipe, and refusing one whose values contradict one another."""

from __future__ import annotations

import math
from pathlib import Path

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceRecipe, StandardMaskHeadSpec, subdivision_start
from pointrend_deploy.recipe.parts import BACKBONE_FEATURES, ResNetSpec, read_recipe

Found = list[tuple[str, str]]


def load_instance_recipe(path: str | Path) -> InstanceRecipe:
    """Read and check a recipe whose ``task`` is ``instance``.

    Args:
        path: a TOML file.

    Raises:
        DeployError: the file is missing or not TOML, has an unknown key, a wrong type or values
            that contradict one another; the message names the key.
    """
    return check_instance_recipe(read_recipe(path, InstanceRecipe), str(path))


def check_instance_recipe(recipe: InstanceRecipe, where: str = "recipe") -> InstanceRecipe:
    """Refuse a recipe whose values contradict one another; return it otherwise.

    Raises:
        DeployError: naming the key and the value that would fit.
    """
    checks = (_input_and_classes, _pyramid, _proposals, _boxes, _masks)
    for key, message in (found for check in checks for found in check(recipe)):
        raise DeployError(f"{where}: `{key}`: {message}", "correct that key of the recipe")
    return recipe


def _wrong(*checks: tuple[bool, str, str]) -> Found:
    return [(key, message) for good, key, message in checks if not good]


def _at_least_one(table: str, **values: int) -> Found:
    return [
        (f"{table}.{key}", f"must be at least 1, not {value}")
        for key, value in values.items()
        if value < 1
    ]


def _input_and_classes(recipe: InstanceRecipe) -> Found:
    spec, classes, count = recipe.input, recipe.classes, recipe.num_classes
    return _wrong(
        (bool(recipe.name.strip()), "name", "must not be empty"),
        (all(map(math.isfinite, spec.pixel_mean)), "input.pixel_mean", "must be finite numbers"),
        (
            all(math.isfinite(s) and s > 0 for s in spec.pixel_std),
            "input.pixel_std",
            "must be positive numbers",
        ),
        (count >= 1, "classes.names", "at least one class is needed"),
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
        (
            len(classes.category_ids) in (0, count)
            and len(set(classes.category_ids)) == len(classes.category_ids),
            "classes.category_ids",
            f"give {count} different ids, one a class, or none",
        ),
    )


def _pyramid(recipe: InstanceRecipe) -> Found:
    offered = BACKBONE_FEATURES[type(recipe.backbone)]
    levels = recipe.fpn.in_features
    if not levels or levels != offered[-len(levels) :]:
        message = f"must be the last features of the backbone, in order, such as {list(offered)}"
        return [("fpn.in_features", message)]
    deepest = 2 ** int(levels[-1][3:])
    found = _wrong(
        (
            recipe.input.size_divisibility >= 1 and recipe.input.size_divisibility % deepest == 0,
            "input.size_divisibility",
            f"must be a multiple of {deepest}, the deepest feature's stride",
        )
    )
    found += _at_least_one("fpn", out_channels=recipe.fpn.out_channels)
    if isinstance(recipe.backbone, ResNetSpec):
        found += _at_least_one(
            "backbone",
            groups=recipe.backbone.groups,
            width_per_group=recipe.backbone.width_per_group,
        )
    pyramid = recipe.pyramid
    asked = {
        "rpn.in_features": recipe.rpn.in_features,
        "mask_head.in_features": recipe.mask_head.in_features,
    }
    if recipe.point_head:
        asked["point_head.in_features"] = recipe.point_head.in_features
    pooled = {"box_head.in_features": recipe.box_head.in_features}
    if isinstance(recipe.mask_head, StandardMaskHeadSpec):
        pooled["mask_head.in_features"] = recipe.mask_head.in_features
    for key, names in asked.items():
        good = bool(names) and set(names) <= set(pyramid) and len(set(names)) == len(names)
        found += _wrong((good, key, f"must be chosen from {list(pyramid)}, each once"))
    for key, names in pooled.items():
        first = pyramid.index(names[0]) if names and names[0] in pyramid else len(pyramid)
        good = bool(names) and names == pyramid[first : first + len(names)]
        message = f"must be neighbouring levels of {list(pyramid)}, finest first"
        found += _wrong((good, key, message))
    return found


def _proposals(recipe: InstanceRecipe) -> Found:
    spec = recipe.rpn
    rows = len(spec.in_features)
    found = _wrong(
        (
            len(spec.anchor_sizes) == rows and all(spec.anchor_sizes),
            "rpn.anchor_sizes",
            f"{rows} levels need {rows} rows, each with at least one size",
        ),
        (
            len({len(sizes) for sizes in spec.anchor_sizes}) <= 1,
            "rpn.anchor_sizes",
            "the levels share one head: every row needs the same number of sizes",
        ),
        (
            all(math.isfinite(s) and s > 0 for sizes in spec.anchor_sizes for s in sizes),
            "rpn.anchor_sizes",
            "must be positive numbers",
        ),
        (
            bool(spec.aspect_ratios) and all(0 < r < math.inf for r in spec.aspect_ratios),
            "rpn.aspect_ratios",
            "at least one positive number is needed",
        ),
        (0 <= spec.anchor_offset < 1, "rpn.anchor_offset", "must be in [0, 1)"),
        (0 < spec.nms_threshold <= 1, "rpn.nms_threshold", "must be in (0, 1]"),
    )
    return found + _at_least_one(
        "rpn", pre_nms_topk=spec.pre_nms_topk, post_nms_topk=spec.post_nms_topk
    )


def _boxes(recipe: InstanceRecipe) -> Found:
    spec = recipe.box_head
    found = _wrong(
        (
            all(0 < w < math.inf for w in spec.box_weights),
            "box_head.box_weights",
            "must be positive numbers",
        ),
        (0 <= spec.score_threshold < 1, "box_head.score_threshold", "must be in [0, 1)"),
        (0 < spec.nms_threshold <= 1, "box_head.nms_threshold", "must be in (0, 1]"),
    )
    return found + _at_least_one(
        "box_head",
        pooler_resolution=spec.pooler_resolution,
        fc_dim=spec.fc_dim,
        num_fc=spec.num_fc,
        detections=spec.detections,
    )


def _masks(recipe: InstanceRecipe) -> Found:
    spec, points = recipe.mask_head, recipe.point_head
    found = _at_least_one(
        "mask_head", pooler_resolution=spec.pooler_resolution, channels=spec.channels
    )
    if isinstance(spec, StandardMaskHeadSpec):
        found += _at_least_one("mask_head", num_conv=spec.num_conv)
        return found + _wrong(
            (points is None, "point_head", "the standard mask head has none; leave the table out")
        )
    found += _at_least_one(
        "mask_head",
        fc_dim=spec.fc_dim,
        num_fc=spec.num_fc,
        output_resolution=spec.output_resolution,
    )
    found += _wrong(
        (
            spec.pooler_resolution % 2 == 0,
            "mask_head.pooler_resolution",
            "the head halves it: must be even",
        )
    )
    if points is None:
        return [*found, ("point_head", "a mask head of kind pointrend needs this table")]
    found += _at_least_one(
        "point_head",
        fc_dim=points.fc_dim,
        num_fc=points.num_fc,
        subdivision_points=points.subdivision_points,
    )
    side, steps = subdivision_start(
        max(1, spec.output_resolution), points.subdivision_steps, points.subdivision_points
    )
    skipped = points.subdivision_steps - steps
    message = f"{points.subdivision_points} points fill the {side}x{side} grid: at least {skipped}"
    return found + _wrong((steps >= 0, "point_head.subdivision_steps", message))
