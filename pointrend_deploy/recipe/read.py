"""Recipes of any task: the one place that chooses the form of a recipe by its ``task``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pointrend_deploy.recipe import instance_check, semantic
from pointrend_deploy.recipe.checks import Found, refuse
from pointrend_deploy.recipe.faults import quoted
from pointrend_deploy.recipe.files import find_recipe, read_recipe
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.semantic import Recipe

AnyRecipe = Recipe | InstanceRecipe
_FORMS: dict[str, tuple[type[AnyRecipe], Callable[[Any], Found]]] = {
    "semantic": (Recipe, semantic.value_faults),
    "instance": (InstanceRecipe, instance_check.value_faults),
}
"""By ``task``: the form of the recipe, and what finds wrong values."""


class _Task(msgspec.Struct):
    task: str = "semantic"


def load_any_recipe(path: str | Path) -> AnyRecipe:
    """Read and check a recipe: ``task = "semantic"`` or ``task = "instance"``.

    Args:
        path: a TOML file, or the name of one of this project's recipes, such as
            ``pointrend_mask_rcnn_r50_fpn_coco``; see :func:`~.files.find_recipe`.

    Raises:
        DeployError: see :func:`pointrend_deploy.recipe.semantic.load_recipe`.
    """
    path = find_recipe(path)
    task = read_recipe(path, _Task).task
    if task not in _FORMS:
        known = " or ".join(map(quoted, _FORMS))
        refuse([("task", f"must be {known}, not {quoted(task)}")], str(path))
    form, faults = _FORMS[task]
    others = [(f"task = {quoted(name)}", other) for name, (other, _) in _FORMS.items()]
    recipe = read_recipe(path, form, faults, [one for one in others if one[1] is not form])
    check_any_recipe(recipe, str(path))
    return recipe


def check_any_recipe(recipe: AnyRecipe, where: str) -> None:
    """Refuse a recipe whose values contradict one another. Raises DeployError naming the key."""
    _, faults = _FORMS[recipe.task]
    refuse(faults(recipe), where)
