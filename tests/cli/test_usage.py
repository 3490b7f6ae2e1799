"""Wrong usage looks like every other error: `error:`, `hint:`, exit code 2."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from pointrend_deploy.cli import main
from pointrend_deploy.cli.app import parse_size
from pointrend_deploy.errors import UsageError
from pointrend_deploy.verbs.export.options import LARGEST_SIDE, ExportOptions
from tests.repository import ROOT

EXPORT = "export r.toml --weights w.pth --out b"


def said(capsys: Any, monkeypatch: Any, arguments: str) -> tuple[int, str, str]:
    """Exit code, and what stands behind `error:` and `hint:`."""
    monkeypatch.setattr(sys, "argv", ["pointrend-deploy", *arguments.split()])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith("error: ") and hint.startswith("hint: ")
    return int(str(caught.value.code)), error[7:], hint[6:]


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ("paint", "pointrend-deploy has no verb paint", "the verbs are recipes, export,"),
        ("exprt r.toml", "pointrend-deploy has no verb exprt", "did you mean export?"),
        ("--nowhere", "pointrend-deploy has no option --nowhere", "--help` lists the verbs"),
        (
            "export",
            "export needs RECIPE, --weights FILE, --out FOLDER, --size HEIGHTxWIDTH",
            "pointrend-deploy export RECIPE --weights FILE --out FOLDER --size HEIGHTxWIDTH",
        ),
        (
            "export r.toml --size 64",
            "export needs --weights FILE, --out FOLDER",
            "pointrend-deploy export r.toml --size 64 --weights FILE --out FOLDER",
        ),
        ("run b p", "run needs --out FOLDER", "pointrend-deploy run b p --out FOLDER"),
        (f"{EXPORT} --sise 64", "export has no option --sise", "did you mean --size?"),
        (f"{EXPORT} --size", "requires an argument", "`pointrend-deploy export --help` lists"),
        (f"{EXPORT} more --size 64", "unexpected extra argument", "export --help` lists"),
        (
            "compare b --images a.png b.png c.png",
            "unexpected extra argument",
            "--images PATH takes one value; `pointrend-deploy compare --help` lists",
        ),
        (
            "calibrate b --images a --images=c",
            "--images is given 2 times and takes one value",
            "--images PATH: One folder of pictures, or a text file",
        ),
        (f"{EXPORT} --size 64 --ops all", "--ops all is not possible", "use plugin or native"),
        (
            "run b p --out r --runner trt",
            "--runner trt is not possible",
            "use auto, onnx, torch or tensorrt",
        ),
        (f"{EXPORT} --size 64 --batch 0", "--batch 0: must be at least 1", "--batch N: Pictures"),
        (f"{EXPORT} --size 64 --batch x", "--batch x: must be a whole number", "--batch N: "),
        ("run b p --out r --draw-above 2", "--draw-above 2: must be at most 1", "SCORE"),
        (f"{EXPORT} --size 64x", "--size 64x is not HEIGHTxWIDTH in pixels", "--size 1024x2048"),
    ],
)
def test_wrong_usage(capsys: Any, monkeypatch: Any, arguments: str, error: str, hint: str) -> None:
    code, message, advice = said(capsys, monkeypatch, arguments)
    assert code == 2
    assert error in message
    assert hint in advice


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024x2048", (1024, 2048)),
        ("1024X2048", (1024, 2048)),
        ("1024,2048", (1024, 2048)),
        (" 1024 x 2048 ", (1024, 2048)),
        ("1024, 2048", (1024, 2048)),
        ("1024", (1024, 1024)),
        ("99999x64", (99999, 64)),
    ],
)
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0x64", "64x0", "x64", "64x", "1x2x3", "-1", "1.5x2", "9" * 10]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not HEIGHTxWIDTH"):
        parse_size(text)


def test_a_size_that_is_too_large_is_called_so() -> None:
    ExportOptions((LARGEST_SIDE, 1)).check()
    with pytest.raises(UsageError, match=f"16x{LARGEST_SIDE + 1} is too large: a side has at most"):
        ExportOptions((16, LARGEST_SIDE + 1)).check()
    with pytest.raises(UsageError, match="--size 0x16 is too small"):
        ExportOptions((0, 16)).check()


def test_commands_in_messages_have_no_placeholder_for_a_bundle() -> None:
    """The program knows the user's bundle, so a command that it prints can be copied."""
    package = ROOT / "pointrend_deploy"
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in package.rglob("*.py")
        for match in re.finditer(r"pointrend-deploy \w+ (BUNDLE|bundle)\b", path.read_text())
    ]
    assert found == []


def test_without_a_verb_the_help_is_shown(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["pointrend-deploy"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert "recipes    List the recipes" in capsys.readouterr().out
