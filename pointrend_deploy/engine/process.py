"""A process of NVIDIA's libraries: how it finds this package, how it ended, its last words."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def ended(code: int) -> str:
    """Say how a process ended, by the code that Python gives: negative for a signal."""
    return f"ended the process ({signal.Signals(-code).name})" if code < 0 else f"ended with {code}"


def last_words(log: Path, start: int) -> list[str]:
    """Return the last three errors in a log from a byte on, or its last three lines."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith(("[E]", "[F]"))]
    plain = [line for line in lines if not line.startswith(("[I]", "[W]"))]
    return [line[:300] for line in (errors or plain or lines)[-3:]]


def with_words(message: str, said: list[str]) -> str:
    """Add the last words of a process to what is wrong."""
    return f"{message}; its last words: {' | '.join(said)}" if said else message


def python_path() -> str:
    """PYTHONPATH with which the worker finds this package, wherever it was imported from."""
    own = str(Path(__file__).resolve().parent.parent.parent)
    rest = os.environ.get("PYTHONPATH", "")
    return f"{own}{os.pathsep}{rest}" if rest else own
