"""Recipe and checkpoint to reference model, whatever the task."""

from __future__ import annotations

from pathlib import Path

from pointrend_deploy.model.instance.model import InstanceModel, load_instance_model
from pointrend_deploy.model.semantic.model import SemanticModel
from pointrend_deploy.model.semantic.model import load_model as load_semantic_model
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.read import load_any_recipe
from pointrend_deploy.recipe.semantic import Recipe


def load_model(
    recipe: Recipe | InstanceRecipe | str | Path, weights: str | Path
) -> SemanticModel | InstanceModel:
    """The reference model of a recipe with a checkpoint's weights, in eval mode.

    Args:
        recipe: a recipe, or the path of a TOML file.
        weights: .pkl, .pth or .safetensors; see :mod:`pointrend_deploy.checkpoint.read`.

    Returns:
        A module whose ``stages(image, out_hw=None)`` gives every stage by name.

    Raises:
        DeployError: the recipe or the checkpoint cannot be read, or they do not fit together.
    """
    if not isinstance(recipe, Recipe | InstanceRecipe):
        recipe = load_any_recipe(recipe)
    if isinstance(recipe, InstanceRecipe):
        return load_instance_model(recipe, weights)
    return load_semantic_model(recipe, weights)
