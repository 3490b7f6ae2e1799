"""Steps are numbered, and one that takes long says that it still runs."""

from __future__ import annotations

import time

import pytest

from pointrend_deploy.progress import Bars, Numbered, Silent


def test_a_step_is_a_line_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars().step("reading"):
        pass
    assert capsys.readouterr().err == "reading  0.0 s\n"


def test_a_long_step_says_that_it_still_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(silence=0.05).step("tracing"):
        time.sleep(0.2)
    *before, last = capsys.readouterr().err.splitlines()
    assert before
    assert set(before) == {"tracing  0 s so far"}
    assert last.startswith("tracing  0.")


def test_it_falls_silent_with_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), Bars(silence=0.05).step("tracing"):
        raise ValueError("wrong")
    time.sleep(0.15)
    assert capsys.readouterr().err == ""


def test_steps_are_numbered(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Numbered(Bars(), 2)
    for text in ("reading", "tracing"):
        with progress.step(text, total=3) as done:
            done()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["1/2 reading", "2/2 tracing"]
    with Numbered(Silent(), 1).step("x") as done:
        done()
