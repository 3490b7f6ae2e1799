"""How far a builder is, from the phases its progress monitor tells of."""

from __future__ import annotations

from dataclasses import dataclass

from pointrend_deploy.engine.job import Message, PhaseFinished, PhaseStarted, StepDone


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """A share from 0 to 1 that never falls.

    Phases lie inside one another: a phase that is half done is half of the step of its parent that
    is under way. A builder does not say which step that is, so it is taken to be the next one.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._share = 0.0

    def hear(self, message: Message) -> float:
        """Take in one message and return the share done."""
        if isinstance(message, PhaseStarted):
            self._open[message.name] = _Phase(message.parent, max(message.steps, 1))
        elif isinstance(message, StepDone) and message.name in self._open:
            phase = self._open[message.name]
            phase.done = min(max(phase.done, message.index + 1), phase.steps)
        elif isinstance(message, PhaseFinished):
            finished = self._open.pop(message.name, None)
            if finished is not None and finished.parent is None:
                self._share = 1.0
        roots = [name for name, phase in self._open.items() if phase.parent not in self._open]
        if roots:
            self._share = max(self._share, self._share_of(roots[0]))
        return self._share

    def _share_of(self, name: str) -> float:
        phase = self._open[name]
        inner = [child for child, other in self._open.items() if other.parent == name]
        part = self._share_of(inner[-1]) if inner else 0.0
        return min(1.0, (phase.done + part) / phase.steps)
