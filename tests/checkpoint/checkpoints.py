"""A small recipe, checkpoints of it and of its variations, and how they are refused."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from pointrend_deploy.checkpoint.fit import fit_checkpoint
from pointrend_deploy.checkpoint.read import Weights
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.semantic.model import build_model
from pointrend_deploy.recipe.parts import ClassesSpec, FPNSpec, InputSpec, PointHeadSpec, ResNetSpec
from pointrend_deploy.recipe.semantic import CoarseHeadSpec, Recipe, check_recipe

BASE = Recipe(
    name="small",
    input=InputSpec(
        channel_order="BGR", pixel_mean=(103.53, 116.28, 123.675), pixel_std=(1.0, 1.0, 1.0)
    ),
    classes=ClassesSpec(names=("a", "b", "c", "d", "e")),
    backbone=ResNetSpec(depth=50, width_per_group=8),
    fpn=FPNSpec(out_channels=64),
    coarse_head=CoarseHeadSpec(channels=32),
    point_head=PointHeadSpec(fc_dim=48),
)
COARSE_ONLY = msgspec.structs.replace(BASE, point_head=None)

Change = dict[str, dict[str, Any]]


def changed(recipe: Recipe, change: Change) -> Recipe:
    parts = {
        part: msgspec.structs.replace(getattr(recipe, part), **values)
        for part, values in change.items()
    }
    return check_recipe(msgspec.structs.replace(recipe, **parts))


@functools.lru_cache(maxsize=64)
def shapes_of(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = build_model(recipe).state_dict()
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


def checkpoint_of(recipe: Recipe) -> dict[str, Tensor]:
    """Tensors of a recipe's model; each repeats one number, so they take no memory."""
    return {
        name: torch.tensor(0.5 + i / 1024).expand(shape)
        for i, (name, shape) in enumerate(shapes_of(recipe).items())
    }


def fit(tensors: dict[str, Tensor], recipe: Recipe = BASE) -> Mapping[str, Tensor]:
    return fit_checkpoint(Weights(tensors), shapes_of(recipe), recipe).tensors


def refusal(tensors: dict[str, Tensor], recipe: Recipe = BASE) -> DeployError:
    with pytest.raises(DeployError) as caught:
        fit(tensors, recipe)
    assert caught.value.hint
    return caught.value
