"""The `recipes` verb."""

from __future__ import annotations

import sys
from typing import Annotated

from pointrend_deploy.cli.app import option


def recipes(
    show: Annotated[
        str | None,
        option(
            "Print the recipe of that name: `recipes --show my_model > my_own.toml` makes a file "
            "to change.",
            metavar="NAME",
            default="list the names",
        ),
    ] = None,
) -> None:
    """List the recipes that `export` finds by name."""
    from pointrend_deploy.recipe.files import find_recipe, recipe_names, recipes_folder
    from pointrend_deploy.recipe.read import load_any_recipe

    if show is not None:
        sys.stdout.write(find_recipe(show).read_text(encoding="utf-8"))
        return
    names = recipe_names()
    width = max(map(len, names), default=0)
    for name in names:
        print(f"{name:{width}}  {load_any_recipe(recipes_folder() / f'{name}.toml').description}")
