"""The errors a user meets: what is wrong, then what to do about it."""

from __future__ import annotations

import os
from pathlib import Path


class DeployError(Exception):
    """An error that the user can mend.

    The command line prints ``error: <message>`` and, below it, ``hint: <hint>``, and ends with
    ``exit_code``, without a traceback. In Python, ``str(error)`` gives the message and, on a
    second line, the hint; code that words an error anew takes ``message`` and ``hint`` apart.

    Args:
        message: what is wrong, naming the file, key or value at fault.
        hint: what to do about it; empty where the message alone says it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(DeployError):
    """The arguments make no sense, whatever is in the files (exit code 2)."""

    exit_code = 2


class ParityError(DeployError):
    """A parity gate failed: two results that should agree do not (exit code 3)."""

    exit_code = 3


def path_of(value: object, what: str, hint: str = "") -> Path:
    """Return a path that a program gave; ``open`` would take a number for a file that is open.

    Args:
        value: a ``str`` or ``Path``.
        what: that it names, such as "the bundle".
        hint: what to give.

    Raises:
        DeployError: it is of another type.
    """
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str):
            return Path(path)
    raise DeployError(f"{what} must be a path (str or Path), not {type(value).__name__}", hint)
