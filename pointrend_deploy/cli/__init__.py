"""The command line: one verb per stage, in the order of the pipeline.

Data goes to stdout; progress, notes, ``error:`` and ``hint:`` go to stderr. Exit codes: 0 done,
1 error (also if a picture of a folder could not be read), 2 wrong usage, 3 a parity gate failed.
The modules of the verbs import torch, onnx and the like only inside their functions, so that
``pointrend-deploy --help`` is quick and works where none of them is installed.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from pointrend_deploy.cli.app import Verb, app, say
from pointrend_deploy.cli.compare import compare, report
from pointrend_deploy.cli.device import build, doctor, run
from pointrend_deploy.cli.export import export
from pointrend_deploy.cli.precision import calibrate, quantize
from pointrend_deploy.cli.recipes import recipes
from pointrend_deploy.cli.usage import as_usage_error
from pointrend_deploy.errors import DeployError
from pointrend_deploy.version import __version__

_VERBS = (recipes, export, calibrate, quantize, build, run, compare, report, doctor)
for _verb in _VERBS:
    app.command(cls=Verb)(_verb)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pointrend-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; files being written are removed as the stack unwinds."""


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


def main() -> None:
    """Entry point of the ``pointrend-deploy`` command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        try:
            code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        finally:
            sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except DeployError as error:
        say(error)
        sys.exit(error.exit_code)
    except Interrupted as stop:
        print("error: interrupted; nothing is half-written", file=sys.stderr)
        sys.exit(128 + stop.args[0])
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        print(f"error: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        wrong = as_usage_error(error, sys.argv[1:], [verb.__name__ for verb in _VERBS])
        if wrong is None:
            raise
        say(wrong)
        sys.exit(wrong.exit_code)
