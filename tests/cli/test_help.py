"""Help of the command line: plain at 80 columns, and without the types of Python."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pointrend_deploy.cli import app

GROUP: Any = typer.main.get_command(app)
VERBS = list(GROUP.commands)


def help_of(*verb: str) -> str:
    done = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "80"}, terminal_width=80)
    assert done.exit_code == 0, done.output
    return done.output


def test_verbs_stand_in_the_order_of_the_pipeline() -> None:
    order = ["export", "calibrate", "quantize", "build", "run", "compare", "report", "doctor"]
    assert [verb for verb in VERBS if verb in order] == order
    shown = re.findall(r"^  (\w+)  +\S", help_of().partition("Commands:")[2], re.MULTILINE)
    assert shown == VERBS


@pytest.mark.parametrize("verb", [(), *((verb,) for verb in VERBS)], ids=lambda v: " ".join(v))
def test_help_shows_no_types_of_python(verb: tuple[str, ...]) -> None:
    text = help_of(*verb)
    assert "Options:" in text
    for noise in ("<bool>", "[no-", "--no-no-", "list[", " range>", "None", "╭"):
        assert noise not in text, noise
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_is(verb: str) -> None:
    text = " ".join(help_of(verb).split())
    for param in GROUP.commands[verb].params:
        assert param.help, param.name
        assert max(param.opts, key=len) in text


def test_a_flag_shows_no_value_and_other_options_say_which() -> None:
    text = help_of("export")
    assert re.search(r"^  --force  +Replace", text, re.MULTILINE)
    assert re.search(r"^  --size HEIGHTxWIDTH  ", text, re.MULTILINE)
    assert "  --keep-fp32 PATTERN  " in help_of("quantize")
