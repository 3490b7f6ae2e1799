"""The verbs that compare a bundle and report on it: compare and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pointrend_deploy.cli.app import BundlePath, EngineName, WeightsFile, option, parse_names, say
from pointrend_deploy.errors import DeployError


def compare(
    bundle: BundlePath,
    images: Annotated[Path, option("One picture, or one folder of pictures.", metavar="PATH")],
    labels: Annotated[
        Path | None,
        option(
            "Ground truth: folder of label maps with the names of the pictures, or a Cityscapes "
            "gtFine folder. Adds mIoU, or AP for instance models.",
            metavar="FOLDER",
        ),
    ] = None,
    coco: Annotated[
        Path | None,
        option(
            "Instance models: ground truth as a COCO annotation file. Adds box, mask and boundary "
            "AP.",
            metavar="FILE",
        ),
    ] = None,
    runner: Annotated[
        Literal["auto", "onnx", "tensorrt"],
        option(
            "Library that runs the bundle beside PyTorch. auto: TensorRT if an engine of the "
            "precision fits this machine, else ONNX Runtime."
        ),
    ] = "onnx",
    engine: EngineName = None,
    precision: Annotated[
        str | None,
        option(
            "Precisions to compare, separated by commas, such as fp32,fp16,int8, or all.",
            metavar="NAMES",
            default="fp32; with --runner tensorrt that of the engine",
        ),
    ] = None,
    weights: WeightsFile = None,
    out: Annotated[
        Path | None,
        option("Folder to write the record and the report to.", "FOLDER", "the bundle"),
    ] = None,
) -> None:
    """Compare a bundle with its PyTorch reference.

    Exit code 3 means that a parity gate failed, 1 that a picture could not be read. A warning, that
    a lower precision answers otherwise than FP32 too often, is no failed gate.
    """
    from pointrend_deploy.packages import require

    require("compare" if precision is None else "compare --precision")
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
        Path | None, option("Folder to write the report to.", "FOLDER", "the bundle")
    ] = None,
) -> None:
    """Write report.html and report.md from a bundle's record.

    The record is parity.json in the bundle, which export and compare write.
    """
    from pointrend_deploy.packages import require

    require("report")
    from pointrend_deploy.verbs.report import write_reports

    for path in write_reports(bundle, out):
        print(path)
