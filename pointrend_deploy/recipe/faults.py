"""All keys of a recipe that have no such name, are missing, or have a value of another type.

msgspec, which reads recipes, stops at the first of them; here each key is converted by itself.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
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
_EXPECTED: Final = re.compile(r"Expected `([^`]*)`( of length \d+)?, got `?([^`]*)`?")


def form_faults(table: Mapping[str, Any], form: Any, above: str = "") -> list[tuple[str, str]]:
    """Find the keys of a table that do not fit the form of a recipe.

    Args:
        table: as the TOML file has it.
        form: a msgspec.Struct type.
        above: path of the table, such as ``backbone.``; empty for the recipe itself.

    Returns:
        Paths of the keys, each with what is wrong.
    """
    config = form.__struct_config__
    known = {field.encode_name: field for field in msgspec.structs.fields(form)}
    names = [*known, config.tag_field] if config.tag_field else list(known)
    found = [(above + key, _unknown(key, names)) for key in table if key not in names]
    tag = table.get(config.tag_field, config.tag) if config.tag_field else None
    if tag != config.tag and config.tag_field:
        found.append((above + config.tag_field, f"must be {quoted(config.tag)}, not {quoted(tag)}"))
    for key, field in known.items():
        if key in table:
            found += _value_faults(table[key], field.type, above + key)
        elif field.required:
            found.append((above + key, "is missing"))
    return found


def _unknown(key: str, names: list[str]) -> str:
    near = get_close_matches(key, names, n=1)
    return f"unknown key; did you mean `{near[0]}`?" if near else "unknown key"


def _value_faults(value: Any, form: Any, key: str) -> list[tuple[str, str]]:
    choices = [one for one in _members(form) if one is not types.NoneType]
    structs = [one for one in choices if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    if not structs:
        return _leaf_faults(value, form, key)
    if not isinstance(value, Mapping):
        return [(key, f"must be a table, [{key}]")]
    if len(structs) == 1:
        return form_faults(value, structs[0], f"{key}.")
    field = structs[0].__struct_config__.tag_field
    by_tag = {one.__struct_config__.tag: one for one in structs}
    tag = value.get(field)
    if not isinstance(tag, str) or tag not in by_tag:
        said = "is missing: " if field not in value else ""
        return [(f"{key}.{field}", f"{said}must be {_either(tuple(by_tag))}")]
    return form_faults(value, by_tag[tag], f"{key}.")


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
    return str(value).lower() if isinstance(value, bool) else str(value)
