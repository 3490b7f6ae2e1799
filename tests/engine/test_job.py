"""The share done, from a builder's nested phases."""

from __future__ import annotations

from pointrend_deploy.engine.job import Message, PhaseFinished, Phases, PhaseStarted, StepDone


def heard(*messages: Message) -> list[float]:
    phases = Phases()
    return [phases.hear(message) for message in messages]


def test_an_inner_phase_is_part_of_the_step_under_way() -> None:
    assert heard(
        PhaseStarted("engine", None, 4),
        PhaseStarted("graph", "engine", 2),
        StepDone("graph", 0),
        StepDone("graph", 1),
        PhaseFinished("graph"),
        StepDone("engine", 0),
        PhaseStarted("tactics", "engine", 10),
        StepDone("tactics", 4),
        PhaseFinished("tactics"),
        PhaseFinished("engine"),
    ) == [0.0, 0.0, 0.125, 0.25, 0.25, 0.25, 0.25, 0.375, 0.375, 1.0]


def test_it_never_falls_and_never_passes_one() -> None:
    shares = heard(
        PhaseStarted("engine", None, 2),
        StepDone("engine", 0),
        StepDone("engine", 7),
        PhaseStarted("late", "engine", 0),
        StepDone("late", 3),
        StepDone("unknown", 1),
        PhaseFinished("unknown"),
    )
    assert shares == sorted(shares)
    assert max(shares) == 1.0
