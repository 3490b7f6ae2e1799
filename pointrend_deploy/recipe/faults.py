"""All keys of a recipe that have no such name, are missing, or have a value of another type.

msgspec, which reads recipes, stops at the first of them; here each key is converted by itself.
A key that a recipe of another kind has is said to be of that kind.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal, Union, get_args, get_origin

import msgspec

_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
"""Types in the words of a TOML file, by msgspec's names for them."""
_UNKNOWN: Final = "unknown key"
_ALONE: Final[Mapping[str, object]] = {
    "name": "a name",
    "description": "",
    "input.channel_order": "RGB",
    "input.pixel_mean": (0.0, 0.0, 0.0),
    "input.pixel_std": (1.0, 1.0, 1.0),
    "classes.ignore_label": 255,
}
"""Keys whose values are held against no other key, each with a sound value."""
_EXPECTED: Final = re.compile(r"Expected `([^`]*)`( of length \d+)?, got `?([^`]*)`?")


Form = Any
"""A msgspec.Struct type, which has no type of its own in mypy's eyes."""
Siblings = Sequence[tuple[str, Form]]
"""Forms that a table could have had, each with the key and value that choose it."""


def form_faults(
    table: Mapping[str, Any], form: Form, above: str = "", siblings: Siblings = ()
) -> list[tuple[str, str]]:
    """Find the keys of a table that do not fit the form of a recipe.

    Args:
        table: as the TOML file has it.
        form: a msgspec.Struct type.
        above: path of the table, such as ``backbone.``; empty for the recipe itself.
        siblings: forms of other kinds, whose keys are recognised.

    Returns:
        Paths of the keys, each with what is wrong.
    """
    config = form.__struct_config__
    known = {field.encode_name: field for field in msgspec.structs.fields(form)}
    names = [*known, config.tag_field] if config.tag_field else list(known)
    found = [(above + key, _unknown(key, names, siblings)) for key in table if key not in names]
    tag = table.get(config.tag_field, config.tag) if config.tag_field else None
    if tag != config.tag and config.tag_field:
        found.append((above + config.tag_field, f"must be {quoted(config.tag)}, not {quoted(tag)}"))
    for key, field in known.items():
        if key in table:
            found += _value_faults(table[key], field.type, above + key, _inner(siblings, key))
        elif field.required:
            found.append((above + key, "is missing"))
    return found


def repaired(
    table: Mapping[str, Any], found: Sequence[tuple[str, str]]
) -> Mapping[str, Any] | None:
    """Take the faults out of a table, so that the values of its other keys can be checked.

    Args:
        table: as the TOML file has it.
        found: what :func:`form_faults` gave for it.

    Returns:
        A copy without unknown keys, with sound values for keys that stand alone; None where
        another key is at fault, since what is held against it could not be judged.
    """
    copied = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in table.items()
    }
    for key, message in found:
        path = key.split("[")[0]
        unknown = message.startswith(_UNKNOWN)
        if not unknown and path not in _ALONE:
            return None
        above, _, last = path.rpartition(".")
        inner = copied.get(above) if above else copied
        if not isinstance(inner, dict):  # a name in quotes that has a point in it
            return None
        if unknown:
            inner.pop(last, None)
        else:
            inner[last] = _ALONE[path]
    return copied


def _unknown(key: str, names: list[str], siblings: Siblings) -> str:
    owners = [kind for kind, form in siblings if key in _fields(form)]
    if owners:
        return f"{_UNKNOWN}; it belongs to {' or '.join(owners)}"
    near = get_close_matches(key, names, n=1)
    return f"{_UNKNOWN}; did you mean `{near[0]}`?" if near else _UNKNOWN


def _fields(form: Form) -> dict[str, Any]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(form)}


def _inner(siblings: Siblings, key: str) -> Siblings:
    """The forms that siblings have for the table of a key."""
    return [(kind, one) for kind, form in siblings for one in _structs(_fields(form).get(key))]


def _structs(form: Any) -> list[Form]:
    members = _members(form)
    return [one for one in members if isinstance(one, type) and issubclass(one, msgspec.Struct)]


def _value_faults(
    value: Any, form: Any, key: str, siblings: Siblings = ()
) -> list[tuple[str, str]]:
    structs = _structs(form)
    if not structs:
        return _leaf_faults(value, form, key)
    if not isinstance(value, Mapping):
        return [(key, f"must be a table, [{key}]")]
    if len(structs) == 1:
        return form_faults(value, structs[0], f"{key}.", siblings)
    field = structs[0].__struct_config__.tag_field
    by_tag = {one.__struct_config__.tag: one for one in structs}
    tag = value.get(field)
    if not isinstance(tag, str) or tag not in by_tag:
        said = "is missing: " if field not in value else ""
        return [(f"{key}.{field}", f"{said}must be {_either(tuple(by_tag))}")]
    others = [(f"{field} = {quoted(name)}", one) for name, one in by_tag.items() if name != tag]
    return form_faults(value, by_tag[tag], f"{key}.", others)


def _leaf_faults(value: Any, form: Any, key: str) -> list[tuple[str, str]]:
    try:
        msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        where = key + place.rstrip("`").replace("[...]", "")
        if get_origin(form) is Literal:
            return [(key, f"must be {_either(get_args(form))}, not {quoted(value)}")]
        return [(where, _said(text))]
    return []


def _said(text: str) -> str:
    match = _EXPECTED.fullmatch(text)
    if match is None:
        return text[:1].lower() + text[1:]
    wanted, length, got = match.groups()
    wanted = " or ".join(_WORDS.get(name.strip(), name.strip()) for name in wanted.split("|"))
    if length:
        return f"must be {wanted}{length}, not {got}"
    return f"must be {wanted}, not {_WORDS.get(got, got)}"


def _members(form: Any) -> tuple[Any, ...]:
    return get_args(form) if get_origin(form) in (Union, types.UnionType) else (form,)


def _either(values: tuple[Any, ...]) -> str:
    return " or ".join(map(quoted, values))


def quoted(value: Any) -> str:
    """Write a value as a TOML file has it."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
