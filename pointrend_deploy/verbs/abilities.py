"""Which verbs and runners this machine can run, by the checks that the verbs make themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from pointrend_deploy.engine import machine
from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import NEEDS, problems, require
from pointrend_deploy.run.backends import trt
from pointrend_deploy.run.open import require_runner


class Ability(msgspec.Struct, frozen=True):
    """A verb with a runner or a target, and whether this machine can do it.

    Attributes:
        verb: as on the command line: ``run --runner onnx``.
        able: whether the verb would begin its work.
        missing: packages of this project's extras that cannot be used.
        reason: why it is not able; empty where it is.
        hint: what to do about that.
    """

    verb: str
    able: bool
    missing: tuple[str, ...] = ()
    reason: str = ""
    hint: str = ""


def _nothing() -> None:
    """Stand for a verb that needs nothing."""


_CHECKS: Final[dict[str, Callable[[], object]]] = {
    "recipes": _nothing,
    "export": partial(require, "export"),
    "calibrate": partial(require, "calibrate"),
    "quantize": partial(require, "quantize"),
    "build --target this": partial(machine.check_machine, "this", "plugin"),
    "build --target this --ops native": partial(machine.check_machine, "this", "native"),
    "build --target rtx:86": partial(machine.check_machine, "rtx:86", "plugin"),
    "build --target rtx:86 --ops native": partial(machine.check_machine, "rtx:86", "native"),
    "build --explain": partial(require, "build --explain"),
    "run": require_runner,
    "run --runner onnx": partial(require, "run --runner onnx"),
    "run --runner torch": partial(require, "run --runner torch"),
    "run --runner tensorrt": partial(trt.check_machine, plugins=True),
    "run --runner tensorrt, engine of --ops native": partial(trt.check_machine, plugins=False),
    "compare": partial(require, "compare"),
    "compare --precision": partial(require, "compare --precision"),
    "compare, average precision": partial(require, "average precision"),
    "report": partial(require, "report"),
    "doctor": _nothing,
}
"""By verb: what it checks before its work, which raises DeployError."""


def abilities() -> tuple[Ability, ...]:
    """Check every verb with every runner. Changes nothing and uses no network."""
    return tuple(_ability(verb, check) for verb, check in _CHECKS.items())


def _ability(verb: str, check: Callable[[], object]) -> Ability:
    try:
        check()
    except DeployError as error:
        command = next((n for n in sorted(NEEDS, key=len)[::-1] if verb.startswith(n)), "")
        missing = tuple(problems(command)) if command else ()
        return Ability(verb, False, missing, error.message, error.hint)
    return Ability(verb, True)
