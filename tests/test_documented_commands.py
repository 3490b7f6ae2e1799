"""Every `pointrend-deploy` command in the guides is one the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from pointrend_deploy.cli import app
from tests.repository import ROOT

GUIDES = sorted(
    path
    for folder in (".", "docs", "demo", "export", "calibration", "plugins", "benchmarks")
    for path in (ROOT / folder).glob("*.md")
)
REDIRECTED = re.compile(r"\s>\s*\S+")
START = re.compile(r"^\s*(?:time )?pointrend-deploy (.*)$")


def commands(text: str) -> list[list[str]]:
    """Arguments of each command in the code blocks of a guide, without comments and `> file`."""
    found: list[list[str]] = []
    joined = re.sub(r"\\\n\s*", " ", text)
    fenced = False
    for line in joined.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        match = START.match(line)
        if match and (fenced or line.startswith("    ")):
            found.append(shlex.split(REDIRECTED.sub("", match[1]), comments=True))
    return found


def taken(arguments: list[str]) -> str:
    """Why the command line refuses arguments; empty where it takes them."""
    group: Any = typer.main.get_command(app)
    try:
        with group.make_context("pointrend-deploy", list(arguments)) as context:
            name, command, rest = group.resolve_command(context, list(arguments))
            command.make_context(name, rest, parent=context)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_guide_are_taken(guide: Path) -> None:
    refused = {
        " ".join(arguments): said
        for arguments in commands(guide.read_text())
        if (said := taken(arguments))
    }
    assert refused == {}


def test_commands_are_found_and_wrong_ones_are_refused() -> None:
    text = (
        "    pointrend-deploy run bundle/ pictures/ --out results/   # needs no torch\n"
        "prose with pointrend-deploy run in it\n"
        "```\npointrend-deploy build b \\\n    --target rtx:86\n```\n"
    )
    assert commands(text) == [
        ["run", "bundle/", "pictures/", "--out", "results/"],
        ["build", "b", "--target", "rtx:86"],
    ]
    assert all(taken(arguments) == "" for arguments in commands(text))
    assert "--nowhere" in taken(["run", "b", "p", "--out", "r", "--nowhere"])
    assert "fp8" in taken(["quantize", "b", "--precision", "fp8"])
    assert taken(["quantise", "b"]) != ""
    assert taken(["calibrate", "b"]) != "", "without its pictures"
    found = [a for path in GUIDES for a in commands(path.read_text())]
    assert len(found) >= 15
