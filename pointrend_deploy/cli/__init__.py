"""The command line: one verb per stage, in the order of the pipeline.

Data goes to stdout; progress, notes, ``error:`` and ``hint:`` go to stderr. Exit codes: 0 done,
1 error (also if a picture of a folder could not be read), 2 wrong usage, 3 a parity gate failed.
The modules of the verbs import torch, onnx and the like only inside their functions, so that
``pointrend-deploy --help`` is quick and works where none of them is installed.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pointrend_deploy.cli.app import BundlePath, EngineName, Verb, WeightsFile, app, parse_names
from pointrend_deploy.cli.device import build, doctor, run
from pointrend_deploy.cli.export import export
from pointrend_deploy.cli.precision import calibrate, quantize
from pointrend_deploy.errors import DeployError
from pointrend_deploy.version import __version__

for _verb in (export, calibrate, quantize, build, run):
    app.command(cls=Verb)(_verb)


@app.command()
def compare(
    bundle: BundlePath,
    images: Annotated[Path, typer.Option(help="A picture or a folder of pictures.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="Ground truth: label maps of the same stems, or a Cityscapes gtFine."),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(help="Instances: COCO annotations; adds box, mask and boundary AP."),
    ] = None,
    runner: Annotated[
        Literal["onnx", "tensorrt"], typer.Option(help="The side compared with PyTorch.")
    ] = "onnx",
    engine: EngineName = None,
    precision: Annotated[
        str | None,
        typer.Option(help="A column each: fp32,fp16,int8, or all the bundle has; the FP32 graph."),
    ] = None,
    weights: WeightsFile = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the record and the report, not the bundle.")
    ] = None,
) -> None:
    """Compare a bundle with its PyTorch reference; exit 3 when a gate fails."""
    from pointrend_deploy.verbs.compare import compare_bundle, record

    result = compare_bundle(
        bundle,
        images,
        labels=labels,
        coco=coco,
        runner=runner,
        engine=engine,
        precisions=None if precision is None else parse_names(precision),
        weights=weights,
        out=out,
    )
    print(result.summary(out))
    try:
        record(result, out)
    except DeployError as error:
        _say(error)
        raise typer.Exit(1 if result else 3) from None
    if not result:
        raise typer.Exit(3)
    if result.run.skipped:
        raise typer.Exit(1)


@app.command()
def report(
    bundle: BundlePath,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; the bundle itself otherwise.")
    ] = None,
) -> None:
    """Render report.html and report.md from the bundle's parity.json."""
    from pointrend_deploy.verbs.report import write_reports

    for path in write_reports(bundle, out):
        print(path)


app.command(cls=Verb)(doctor)


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


def _say(error: DeployError) -> None:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def main() -> None:
    """Entry point of the ``pointrend-deploy`` command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except DeployError as error:
        _say(error)
        sys.exit(error.exit_code)
    except Interrupted as stop:
        print("error: interrupted; nothing is half-written", file=sys.stderr)
        sys.exit(128 + stop.args[0])
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        print(f"error: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
