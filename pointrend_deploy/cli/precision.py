"""The verbs that lower a bundle's precision: calibrate and quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pointrend_deploy.cli.app import BundlePath

Method = Literal["entropy", "percentile", "mse", "max"]


def calibrate(
    bundle: BundlePath,
    images: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Folder of pictures, or a text file that lists them (one path per line, with or "
            "without its SHA-256).",
        ),
    ],
    method: Annotated[
        Method,
        typer.Option(help="How the range of a value is chosen from its histogram."),
    ] = "entropy",
    percentile: Annotated[
        float,
        typer.Option(
            metavar="PERCENT",
            help="With --method percentile: percent of the values inside the range.",
        ),
    ] = 99.99,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write the ranges to.",
            show_default="ranges.json in the bundle",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the ranges to this file too, as a TensorRT calibration cache.",
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Start again instead of resuming an interrupted run."),
    ] = False,
) -> None:
    """Measure the activation ranges that INT8 needs.

    Runs the FP32 graph on pictures and records a histogram of every activation. An interrupted run
    resumes where it stopped. Exit code 1 means that a picture could not be read.
    """
    from pointrend_deploy.progress import Bars
    from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle

    options = CalibrateOptions(method, percentile, out, cache, restart)
    result = calibrate_bundle(bundle, images, options, Bars())
    print(result.summary())
    if result.skipped:
        raise typer.Exit(1)


def quantize(
    bundle: BundlePath,
    precision: Annotated[
        Literal["fp16", "int8"], typer.Option(help="Precision of the graph to make.")
    ],
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Layers to keep in FP32: a module path or a pattern, such as "
            "'backbone.bottom_up.res5*'. May be given several times.",
        ),
    ] = None,
    keep_fp16: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="INT8: layers to keep in FP16, as for --keep-fp32. May be given several times.",
        ),
    ] = None,
    also_int8: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="INT8: layers to add that are not in INT8 by default, such as '*point_head*' or "
            "'*predictor*'. May be given several times.",
        ),
    ] = None,
    fallback: Annotated[
        Literal["fp16", "fp32"],
        typer.Option(help="INT8: precision of the layers that are not in INT8."),
    ] = "fp16",
    ranges: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="INT8: file of activation ranges, or a TensorRT calibration cache.",
            show_default="ranges.json in the bundle",
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            help="INT8: how the range of a value is chosen from its histogram.",
            show_default="as calibrated",
        ),
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            help="INT8, with --method percentile: percent of the values inside the range.",
            show_default="as calibrated, or 99.99",
        ),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="INT8: first measure how much accuracy each block loses."
        ),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="With --sensitivity: folder or list of pictures to measure on; the calibration "
            "pictures will do.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="With --sensitivity: accuracy that may be lost, in points (percent). Proposes "
            "which blocks to keep out of INT8.",
        ),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="With --max-drop: keep the proposed blocks out of INT8."),
    ] = False,
) -> None:
    """Make the FP16 or INT8 graph of a bundle and check it.

    The new graph is added to the bundle once it has been compared with the FP32 graph on generated
    pictures. Whatever selects points, labels or boxes stays in FP32.
    """
    from pointrend_deploy.progress import Bars
    from pointrend_deploy.verbs.quantize.options import QuantizeOptions
    from pointrend_deploy.verbs.quantize.quantize import quantize_bundle

    options = QuantizeOptions(
        precision=precision,
        keep_fp32=tuple(keep_fp32 or ()),
        keep_fp16=tuple(keep_fp16 or ()),
        also_int8=tuple(also_int8 or ()),
        ranges=ranges,
        method=method,
        percentile=percentile,
        fallback=fallback,
        sensitivity=sensitivity,
        images=images,
        max_drop=max_drop,
        apply=apply,
    )
    print(quantize_bundle(bundle, options, Bars()).summary())
