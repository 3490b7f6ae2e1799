"""Recipe and checkpoint to reference model: the one place where the recipe chooses the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pointrend_deploy.model.instance.model import InstanceModel, load_instance_model
from pointrend_deploy.model.semantic.model import SemanticModel
from pointrend_deploy.model.semantic.model import load_model as load_semantic_model
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.read import load_any_recipe
from pointrend_deploy.recipe.semantic import Recipe

Model = SemanticModel | InstanceModel
_LOADERS: Final[Mapping[type, Callable[..., Model]]] = {
    Recipe: load_semantic_model,
    InstanceRecipe: load_instance_model,
}


def load_model(
    recipe: Recipe | InstanceRecipe | str | Path,
    weights: str | Path,
    *,
    weights_key: str | None = None,
    ignore_extra: bool = False,
) -> Model:
    """Load the reference model of a recipe with a checkpoint's weights, in eval mode, float32.

    Args:
        recipe: a recipe, or the path of a TOML file.
        weights: .pkl, .pth or .safetensors; see :mod:`pointrend_deploy.checkpoint.read`.
        weights_key: of the set of weights to take, where the file has several (``ema``); None for
            the usual one. ``fitted`` of the model says which was taken and what else is there.
        ignore_extra: leave out tensors that no part of the model has a place for; without it they
            are an error.

    Returns:
        A module whose ``stages(image, out_hw=None)`` gives every stage by name.

    Raises:
        DeployError: the recipe or the checkpoint cannot be read, or they do not fit together; or
            the file has no weights under ``weights_key``.
    """
    if not isinstance(recipe, Recipe | InstanceRecipe):
        recipe = load_any_recipe(recipe)
    loader = _LOADERS[type(recipe)]
    return loader(recipe, weights, weights_key=weights_key, ignore_extra=ignore_extra)
