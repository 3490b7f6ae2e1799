"""Any recipe, by its ``task``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.instance_check import check_instance_recipe, load_instance_recipe
from pointrend_deploy.recipe.parts import read_recipe
from pointrend_deploy.recipe.semantic import Recipe, check_recipe, load_recipe

AnyRecipe = Recipe | InstanceRecipe


class _Task(msgspec.Struct):
    task: str = "semantic"


def load_any_recipe(path: str | Path) -> AnyRecipe:
    """Read and check a recipe: ``task = "semantic"`` or ``task = "instance"``.

    Raises:
        DeployError: see :func:`pointrend_deploy.recipe.semantic.load_recipe`.
    """
    if read_recipe(path, _Task).task == "instance":
        return load_instance_recipe(path)
    return load_recipe(path)


def check_any_recipe(recipe: AnyRecipe, where: str) -> None:
    """Refuse a recipe whose values contradict one another. Raises DeployError naming the key."""
    if isinstance(recipe, InstanceRecipe):
        check_instance_recipe(recipe, where)
    else:
        check_recipe(recipe, where)
