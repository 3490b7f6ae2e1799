"""Names of nodes that a user's patterns mean."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from pointrend_deploy.errors import UsageError

_NEAREST = 3


def matched(names: Sequence[str], patterns: Sequence[str], option: str) -> frozenset[str]:
    """Names that at least one pattern means.

    A pattern is a whole name with ``*``, ``?`` and ``[...]`` as in a shell, case kept, or a module
    path: then it means every name below it too. ``backbone.bottom_up.res5`` means
    ``backbone.bottom_up.res5.0.conv1`` but not ``backbone.bottom_up.res50``.

    Args:
        names: to choose from.
        patterns: as given on the command line.
        option: that gave them, for the error.

    Raises:
        UsageError: a pattern that means none of the names; the nearest ones are named.
    """
    found: set[str] = set()
    for pattern in patterns:
        meant = {name for name in names if _means(pattern, name)}
        if not meant:
            raise UsageError(f"{option} {pattern!r} matches no layer", _nearest(pattern, names))
        found |= meant
    return frozenset(found)


def _means(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """The names and module paths most like a pattern, as a hint."""
    depth = pattern.count(".") + 1
    paths = dict.fromkeys(".".join(name.split(".")[:depth]) for name in names)
    plain = pattern.strip("*?")
    near = difflib.get_close_matches(plain, [*paths, *names], n=_NEAREST, cutoff=0.5)
    near = near or [name for name in names if plain and plain in name][:_NEAREST]
    near = near or list(paths)[:_NEAREST]
    return f"patterns are of module paths, such as {', '.join(dict.fromkeys(near))}"
