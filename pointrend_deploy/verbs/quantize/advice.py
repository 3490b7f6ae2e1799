"""Find the layers to keep in FP32 so that a graph passes its check, and prove it before saying so.

Patterns are proposed only if the graph was made with them, in this run, and passed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.retype import WeightRangeError
from pointrend_deploy.verbs.quantize.span import ActivationRangeError

if TYPE_CHECKING:
    from onnx import ModelProto

Graphs = Mapping[str, "ModelProto"]
Make = Callable[[tuple[str, ...]], Graphs]
"""Makes the graphs with some more patterns for --keep-fp32."""
Check = Callable[[Graphs], str]
"""Checks graphs, raises DeployError if they are not sound, and describes how well they agree."""

MOST_PATTERNS: Final = 8
"""Most patterns that a hint names; more are put together by their module paths."""
_ROUNDS: Final = 4
"""Most choices of layers that are tried."""


def advice(problem: ActivationRangeError | WeightRangeError, make: Make, check: Check) -> str:
    """Return a hint with patterns for --keep-fp32 with which the graph was made and passed.

    Args:
        problem: what is wrong with the graph as the options have it.
        make: makes the graphs with more layers in FP32.
        check: checks them.

    Returns:
        The hint; it says so if no patterns were found.
    """
    nodes: dict[str, None] = {}
    try:
        for _ in range(_ROUNDS):
            more = _nodes(problem)
            if nodes.keys() >= more.keys():
                break
            nodes |= more
            patterns = patterns_of(nodes)
            try:
                agreement = check(make(patterns))
            except (ActivationRangeError, WeightRangeError) as further:
                problem = further
                continue
            return (
                f"keep in FP32 as well: {options(patterns)} (the graph was made so and checked: "
                f"{agreement})"
            )
    except DeployError:  # such a graph cannot be made, or fails for another reason
        pass
    tried = f"; these are not enough: {options(patterns_of(nodes))}" if nodes else ""
    return f"no layers were found that make it sound when kept in FP32: deploy FP32{tried}"


def _nodes(problem: ActivationRangeError | WeightRangeError) -> dict[str, None]:
    if isinstance(problem, WeightRangeError):
        return dict.fromkeys(problem.layers)
    return dict.fromkeys(name for value in problem.values for name in value.nodes)


def options(patterns: Iterable[str]) -> str:
    """Write patterns as options that can be copied into a shell."""
    return " ".join(f"--keep-fp32 {shlex.quote(pattern)}" for pattern in patterns)


def patterns_of(nodes: Iterable[str], most: int = MOST_PATTERNS) -> tuple[str, ...]:
    """Return at most ``most`` patterns that match all of these nodes, and perhaps others.

    A pattern is the name of a node, which matches all names below it too. Where there are too many,
    the longest paths are replaced by the path of the module that they are in.
    """
    found = _without_covered(dict.fromkeys(nodes))
    while len(found) > most and (depth := max(name.count(".") for name in found)):
        found = _without_covered(
            dict.fromkeys(
                name.rpartition(".")[0] if name.count(".") == depth else name for name in found
            )
        )
    return tuple(found)


def _without_covered(names: Iterable[str]) -> list[str]:
    """Leave out names that are below another one."""
    known = list(names)
    return [name for name in known if not any(name.startswith(f"{other}.") for other in known)]
