"""Wording that several summaries share."""

from __future__ import annotations


def count_of(count: int, one: str, many: str = "") -> str:
    """A count with its noun: ``1 picture``, ``12 pictures``, ``2 other classes``.

    Args:
        count: how many, 0 or more.
        one: the noun for one.
        many: the noun for any other count; ``one`` with an s where it is empty.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"
