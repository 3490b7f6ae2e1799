"""What every row of ``parity.json`` has in common."""

from __future__ import annotations

from typing import Literal

import msgspec

Op = Literal["<=", ">="]


class Row(msgspec.Struct, kw_only=True, frozen=True):
    """A frozen row of ``parity.json``; a field that is absent there takes its default."""


class Limit(Row, frozen=True):
    """A written limit, the value that was compared with it, and whether it passed.

    A limit is true in a condition when it passed.

    Attributes:
        name: what is limited.
        value: the figure found; None where there is none, which never passes.
        limit: the largest (``<=``) or smallest (``>=``) value that passes.
        reason: why the limit is what it is.
    """

    name: str
    value: float | None
    limit: float
    op: Op
    reason: str
    passed: bool

    def __bool__(self) -> bool:
        return self.passed
