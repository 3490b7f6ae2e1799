"""Values that a message suggests: each is tried in the recipe before it is printed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from pointrend_deploy.checkpoint.shapes import Contradiction
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.read import check_any_recipe
from pointrend_deploy.recipe.semantic import Recipe

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe | InstanceRecipe")

_KINDS: dict[str, dict[str, Any]] = {
    "resnet": {"depth": 50},
    "efficientnet_lite0": {},
    "standard": {},
    "pointrend": {},
}
"""What a table of each ``kind`` needs beside its kind."""


def verified(
    found: Sequence[Contradiction],
    recipe: AnyRecipe,
    again: Callable[[AnyRecipe], Iterable[Contradiction]],
) -> list[Contradiction]:
    """Keep only those suggested values that end their contradiction and that a recipe may have.

    A value is tried alone, and together with what is suggested for the other keys: a level that a
    head does not read any more may have stood in its way.

    Args:
        found: contradictions, each with the values that its check would suggest.
        recipe: the recipe that is contradicted.
        again: what contradicts another recipe.

    Returns:
        The same contradictions. One whose every value was dropped says that none fits.
    """
    together = recipe
    for each in found:
        for new in list(each.fits.values())[:1]:
            with suppress(msgspec.ValidationError):
                together = with_value(together, each.key, new)
    return [_verified(each, (recipe, together), again) for each in found]


def _verified(
    each: Contradiction,
    recipes: Sequence[AnyRecipe],
    again: Callable[[AnyRecipe], Iterable[Contradiction]],
) -> Contradiction:
    fits = {
        shown: new
        for shown, new in each.fits.items()
        if any(_ends(each.key, new, recipe, again) for recipe in recipes)
    }
    holds = each.holds if fits or not each.fits else f"{each.holds}; no value of this key fits"
    return Contradiction(each.key, each.says, holds, fits)


def _ends(
    key: str,
    new: object,
    recipe: AnyRecipe,
    again: Callable[[AnyRecipe], Iterable[Contradiction]],
) -> bool:
    try:
        trial = with_value(recipe, key, new)
    except msgspec.ValidationError:
        return False
    try:
        check_any_recipe(trial, "recipe")
    except DeployError as error:
        fault = re.search(r"`([\w.]+)`", error.message)
        if fault is None or fault[1] == key:
            return False  # another key at fault is one that has to change too
    return all(other.key != key for other in again(trial))


def with_value(recipe: AnyRecipe, key: str, new: object) -> AnyRecipe:
    """Return a recipe with one key changed; its values are not checked against one another.

    Args:
        recipe: of any task.
        key: path of the key, such as ``box_head.fc_dim``. A new ``kind`` makes its table anew, and
            that of the mask head brings the point head it needs or takes it away.
        new: the value.

    Raises:
        msgspec.ValidationError: recipes have no such key, or it has another type.
    """
    table: dict[str, Any] = msgspec.to_builtins(recipe)
    *path, last = key.split(".")
    part = table
    for name in path:
        part = part[name]
    if last == "kind":
        table[path[0]] = {"kind": new, **_KINDS.get(str(new), {})}
    else:
        part[last] = new
    if key == "mask_head.kind":
        table["point_head"] = {} if new == "pointrend" else None
    if key == "classes.names":
        for aligned in ("colours", "category_ids"):
            part.pop(aligned, None)
    return msgspec.convert(table, type(recipe))
