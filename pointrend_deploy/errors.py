"""The errors a user meets: what is wrong, then what to do about it."""

from __future__ import annotations


class DeployError(Exception):
    """Something the user can mend.

    The command line prints ``error: <message>`` and, below it, ``hint: <hint>``, and ends with
    ``exit_code``; no traceback is shown.

    Args:
        message: what is wrong, naming the file, key or value at fault.
        hint: what to do about it; empty where nothing better than the message can be said.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DeployError):
    """What was asked for makes no sense, whatever the files hold (exit code 2)."""

    exit_code = 2


class ParityError(DeployError):
    """A parity gate failed: two things that should agree do not (exit code 3)."""

    exit_code = 3
