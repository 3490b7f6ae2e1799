"""The verbs that compare a bundle and report on it: compare and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pointrend_deploy.cli.app import BundlePath, EngineName, WeightsFile, parse_names, say
from pointrend_deploy.errors import DeployError


def compare(
    bundle: BundlePath,
    images: Annotated[Path, typer.Option(help="A picture or a folder of pictures.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="The truth: label maps with the pictures' stems, or Cityscapes' gtFine."),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(help="Instances: COCO annotations as the truth, for average precision."),
    ] = None,
    runner: Annotated[
        Literal["onnx", "tensorrt"], typer.Option(help="What is compared with PyTorch.")
    ] = "onnx",
    engine: EngineName = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Precisions to compare, such as fp32,fp16,int8, or all; usually fp32."),
    ] = None,
    weights: WeightsFile = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the record and the report; the bundle itself otherwise."),
    ] = None,
) -> None:
    """Compare a bundle with its PyTorch reference; exit 3 when a gate fails."""
    from pointrend_deploy.parity.comparison import CompareOptions
    from pointrend_deploy.verbs.compare import compare_with, record

    options = CompareOptions(
        labels=labels,
        coco=coco,
        runner=runner,
        engine=engine,
        precisions=None if precision is None else parse_names(precision),
        weights=weights,
        out=out,
    )
    result = compare_with(bundle, images, options)
    print(result.summary(out))
    try:
        record(result, out)
    except DeployError as error:
        say(error)
        raise typer.Exit(1 if result else 3) from None
    if not result:
        raise typer.Exit(3)
    if result.run.skipped:
        raise typer.Exit(1)


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
