"""Recipe files: found by path or by name, read, and told from files of other kinds.

The recipes of this project stand in ``export/`` of a checkout. An installed package has a copy of
that folder in ``recipe/shipped/``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pointrend_deploy.errors import DeployError, path_of
from pointrend_deploy.recipe.checks import EVERY_KEY, Found, refuse
from pointrend_deploy.recipe.faults import Siblings, form_faults, repaired

Form = TypeVar("Form")
LARGEST: Final = 1 << 20
"""Bytes of the largest recipe that is read. Those in ``export/`` have less than 4 KiB."""

_SHIPPED: Final = Path(__file__).resolve().parent / "shipped"
_CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent / "export"
_CHECKPOINTS: Final = (".pth", ".pt", ".pkl", ".ckpt", ".safetensors", ".bin")
_YAML: Final = re.compile(r"---\s*$|[\w\"'.-]+\s*:(\s|$)|-\s", re.ASCII)
"""The first line of a YAML file that is no comment, which is no line of a TOML file."""
_DETECTRON2: Final = re.compile(r"^(_BASE_|MODEL|INPUT|DATASETS|SOLVER|VERSION)\s*:", re.MULTILINE)
_LISTED: Final = "`pointrend-deploy recipes` lists the recipes that are found by name"


def recipes_folder() -> Path:
    """Return the folder of this project's recipes."""
    return _SHIPPED if _SHIPPED.is_dir() else _CHECKOUT


def recipe_names() -> tuple[str, ...]:
    """List the names of this project's recipes, sorted; each is ``<name>.toml`` in the folder."""
    return tuple(sorted(path.stem for path in recipes_folder().glob("*.toml")))


def find_recipe(recipe: str | Path) -> Path:
    """Find the file of a recipe.

    Args:
        recipe: path of a TOML file; or the name of one of this project's recipes, without folder.
            A file of that path comes first.

    Raises:
        DeployError: there is no such file and no such name; the hint has the same name with
            ``.toml`` where that is a file, else the nearest names.
    """
    path = path_of(recipe, "a recipe", _LISTED)
    if path.exists() and not (path.is_dir() and path.name == str(recipe)):
        return path
    name = path.name.removesuffix(".toml")
    names = recipe_names()
    alone = str(recipe) in (name, f"{name}.toml")
    if alone and name in names:
        return recipes_folder() / f"{name}.toml"
    if path.is_dir():
        return path
    file = path.with_suffix(".toml")
    here = [str(file)] if file.is_file() else []
    near = here or ([name] if name in names else get_close_matches(name, names, n=3, cutoff=0.5))
    hint = f"did you mean {' or '.join(near)}? {_LISTED}" if near else _LISTED
    if alone and not str(recipe).endswith(".toml"):
        raise DeployError(f"no recipe is called {recipe}", hint)
    raise DeployError(f"cannot read the recipe {recipe}: No such file or directory", hint)


def read_recipe(
    recipe: str | Path,
    form: type[Form],
    value_faults: Callable[[Form], Found] | None = None,
    siblings: Siblings = (),
) -> Form:
    """Read a TOML file as a typed form; the values of a file of that form are not checked.

    Args:
        recipe: path or name; see :func:`find_recipe`.
        form: the type to read.
        value_faults: finds wrong values; where the form is wrong too, both are said at once.
        siblings: forms of recipes of other tasks, whose keys are recognised.

    Raises:
        DeployError: the file is missing, is of another kind or not TOML, or has unknown keys or
            wrong types; the message names the path of every such key.
    """
    path = find_recipe(recipe)
    raw = _read(path)
    try:
        return msgspec.toml.decode(raw, type=form)
    except msgspec.ValidationError as error:
        table = _table(raw)
        found = form_faults(table, form, siblings=siblings)
        rest = repaired(table, found) if value_faults else None
        if value_faults and rest is not None:
            with suppress(msgspec.ValidationError):  # a key that was not understood
                found += value_faults(msgspec.convert(rest, form))
        refuse(found, str(path))
        raise DeployError(f"{path}: {error}", EVERY_KEY) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        _refuse_yaml(path, raw)
        raise DeployError(f"recipe {path} is not valid TOML: {error}", EVERY_KEY) from error


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise DeployError(f"{path} is a folder, not a recipe", _LISTED)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise DeployError(
            f"cannot read the recipe {path}: {error.strerror or error}", _LISTED
        ) from error
    if path.suffix.lower() in _CHECKPOINTS or raw.startswith((b"PK\x03\x04", b"\x80")):
        raise DeployError(
            f"{path} is a checkpoint, not a recipe",
            f"give a recipe first and the checkpoint as --weights {path}; {_LISTED}",
        )
    if len(raw) > LARGEST:
        raise DeployError(f"{path} is no recipe: it is larger than {LARGEST >> 20} MiB", _LISTED)
    if path.suffix.lower() in (".yaml", ".yml"):
        _refuse_yaml(path, raw)
    return raw


def _refuse_yaml(path: Path, raw: bytes) -> None:
    """Refuse YAML, such as the configuration that detectron2 writes beside a checkpoint."""
    text = raw.decode(errors="replace")
    detectron2 = _DETECTRON2.search(text) is not None
    named = path.suffix.lower() in (".yaml", ".yml")
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if not (detectron2 or named or _YAML.match(next(lines, ""))):
        return
    kind = "a configuration of detectron2 (YAML)" if detectron2 else "a YAML file"
    holds = "is" if named or not path.suffix else "holds"
    raise DeployError(
        f"{path} {holds} {kind}, and a recipe is a TOML file",
        f"{_LISTED}; `pointrend-deploy recipes --show NAME > my_model.toml` makes one to change: "
        "docs/your-checkpoint.md says which key takes which value of that file",
    )


def _table(raw: bytes) -> dict[str, Any]:
    table: dict[str, Any] = msgspec.toml.decode(raw)
    return table
