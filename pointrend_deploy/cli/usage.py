"""Wrong usage, in the form of all other errors: `error:` and `hint:`, exit code 2.

typer raises exceptions of click, or from 0.26 on of its own copy of click. The two have the same
class names, attributes and parsers, by which they are told apart here; where their texts differ,
both are understood.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Final

from pointrend_deploy.errors import UsageError

PROGRAM: Final = "pointrend-deploy"
_RANGES: Final = (
    (r"greater than or equal to (\S+)|range x>=(\S+)", "must be at least {}"),
    (r"less than or equal to (\S+)|range x<=(\S+)", "must be at most {}"),
    (r"range (\S+<=x<=\S+)", "must be in the range {}"),
    (r"valid integer()", "must be a whole number"),
    (r"valid (?:number|float)()", "must be a number"),
)
"""What the parsers say of a wrong number, and what is said here."""


def as_usage_error(error: Any, words: Sequence[str], verbs: Sequence[str]) -> UsageError | None:
    """Word a parser's exception as an error of this project.

    Args:
        error: any exception.
        words: the arguments of the program.
        verbs: the names of the verbs.

    Returns:
        The error; None where the exception is not the parser's.
    """
    if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
        return None
    context = getattr(error, "ctx", None)
    command = context.command if context is not None else None
    verb = next((word for word in words[:1] if word in verbs), "")
    name = verb or PROGRAM
    called = f"{PROGRAM} {verb}".strip()
    listed = f"`{called} --help` lists {'the options' if verb else 'the verbs'}"
    kind = type(error).__name__
    param = getattr(error, "param", None)
    if kind == "MissingParameter" and param is not None:
        lacking = _lacking(context, words[1:]) or [param]
        shown = [_shown(one) for one in lacking]
        message = f"{name} needs {', '.join(shown)}"
        return UsageError(message, shlex.join([PROGRAM, *words]) + f" {' '.join(shown)}")
    if kind == "NoSuchOption" and command is not None:
        options = [option for one in command.params for option in one.opts]
        hint = _near(error.option_name, options, listed)
        return UsageError(f"{name} has no option {error.option_name}", hint)
    if kind == "BadParameter" and param is not None:
        return _bad_value(param, str(error.message).removeprefix("Value error, "), words)
    text = error.format_message().strip().rstrip(".")
    if match := re.search(r"No such command '(.*?)'", text):
        hint = _near(match[1], verbs, f"the verbs are {', '.join(verbs)}")
        return UsageError(f"{PROGRAM} has no verb {match[1]}", hint)
    extra = re.search(r"unexpected extra arguments? \((.*)\)|extra argument\(s\) \((.*)\)", text)
    if extra and command is not None:
        before = _option_before(words, extra[1] or extra[2], command.params)
        listed = f"{before} takes one value; {listed}" if before else listed
    return UsageError(f"{name}: {text[:1].lower()}{text[1:]}", listed)


def _option_before(words: Sequence[str], extra: str, params: Sequence[Any]) -> str:
    """Name the option whose value an extra argument follows; empty where it follows none."""
    place = next((at for at, word in enumerate(words) if word == extra.split()[0]), 0)
    if place < 2:
        return ""
    return next((_shown(one) for one in params if words[place - 2] in one.opts), "")


def refuse_repeated(params: Sequence[Any], words: Sequence[str]) -> None:
    """Refuse an option that is given twice and has one value: the parser would drop the first.

    Args:
        params: of the verb.
        words: its arguments.

    Raises:
        UsageError: naming the option.
    """
    own = list(words[: words.index("--")] if "--" in words else words)
    for param in params:
        if param.param_type_name != "option" or param.multiple or getattr(param, "is_flag", False):
            continue
        values = [after for word, after in pairwise([*own, ""]) if word in param.opts]
        values += [
            w.partition("=")[2] for w in own if w.partition("=")[0] in param.opts and "=" in w
        ]
        if len(values) > 1:
            raise UsageError(
                f"{_shown(param).split()[0]} is given {len(values)} times and takes one value",
                _said(param),
            )


def _bad_value(param: Any, text: str, words: Sequence[str]) -> UsageError:
    value, _, choices = text.rstrip(".").partition(" is not one of ")
    name = _shown(param).split()[0]
    if choices:
        wanted = " or ".join(choices.replace("'", "").rsplit(", ", 1))
        return UsageError(f"{name} {value.strip(chr(39))} is not possible", f"use {wanted}")
    said = text[:1].lower() + text[1:].rstrip(".")
    for pattern, wording in _RANGES:
        if match := re.search(pattern, text):
            said = wording.format(next(filter(None, match.groups()), "").rstrip("."))
            break
    given = next((w for n, w in pairwise(words) if n in param.opts), "")
    return UsageError(f"{' '.join(filter(None, (name, given)))}: {said}", _said(param))


def _lacking(context: Any, words: Sequence[str]) -> list[Any]:
    """Find the parameters that a verb needs and that the words do not give."""
    try:
        given, _, _ = context.command.make_parser(context).parse_args(args=list(words))
    except Exception:  # what is wrong besides is said in the next run
        return []
    values = {name: value for name, value in given.items() if isinstance(value, str | list | tuple)}
    return [p for p in context.command.params if p.required and not values.get(p.name)]


def _near(given: str, known: Sequence[str], otherwise: str) -> str:
    near = get_close_matches(given, known, n=1)
    return f"did you mean {near[0]}? {otherwise}" if near else otherwise


def _shown(param: Any) -> str:
    """Show a parameter as in help: ``--size HEIGHTxWIDTH``, or ``BUNDLE``."""
    metavar = param.metavar or str(param.name).upper()
    if param.param_type_name == "argument":
        return str(metavar)
    return f"{max(param.opts, key=len)} {metavar}"


def _said(param: Any) -> str:
    """Say what a parameter is, in the words of its help."""
    return f"{_shown(param)}: {str(param.help or '').strip().rstrip('.')}"
