"""The verbs that lower a bundle's precision: calibrate and quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pointrend_deploy.cli.app import BundlePath, flag, option

Method = Literal["entropy", "percentile", "mse", "max"]


def calibrate(
    bundle: BundlePath,
    images: Annotated[
        Path,
        option(
            "One folder of pictures, or a text file that lists them (one path per line, with or "
            "without its SHA-256); a list may name pictures of several folders.",
            metavar="PATH",
        ),
    ],
    method: Annotated[
        Method, option("How the range of a value is chosen from its histogram.")
    ] = "entropy",
    percentile: Annotated[
        float,
        option(
            "With --method percentile: percent of the values inside the range.", metavar="PERCENT"
        ),
    ] = 99.99,
    out: Annotated[
        Path | None,
        option("File to write the ranges to.", metavar="FILE", default="ranges.json in the bundle"),
    ] = None,
    cache: Annotated[
        Path | None,
        option(
            "Write the ranges to this file too, as a TensorRT calibration cache.", metavar="FILE"
        ),
    ] = None,
    restart: Annotated[
        bool, flag("--restart", "Start again instead of resuming an interrupted run.")
    ] = False,
) -> None:
    """Measure the activation ranges that INT8 needs.

    Runs the FP32 graph on pictures and records a histogram of every activation. An interrupted run
    resumes where it stopped. Exit code 1 means that a picture could not be read.
    """
    from pointrend_deploy.packages import require

    require("calibrate")
    from pointrend_deploy.progress import Bars
    from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle

    options = CalibrateOptions(method, percentile, out, cache, restart)
    result = calibrate_bundle(bundle, images, options, Bars())
    print(result.summary())
    if result.skipped:
        raise typer.Exit(1)


def quantize(
    bundle: BundlePath,
    precision: Annotated[Literal["fp16", "int8"], option("Precision of the graph to make.")],
    keep_fp32: Annotated[
        list[str] | None,
        option(
            "Layers to keep in FP32: a module path or a pattern, such as "
            "'backbone.bottom_up.res5*'. May be given several times.",
            metavar="PATTERN",
        ),
    ] = None,
    keep_fp16: Annotated[
        list[str] | None,
        option(
            "INT8: layers to keep in FP16, as for --keep-fp32. May be given several times.",
            metavar="PATTERN",
        ),
    ] = None,
    also_int8: Annotated[
        list[str] | None,
        option(
            "INT8: layers to add that are not in INT8 by default, such as '*point_head*' or "
            "'*predictor*'. May be given several times.",
            metavar="PATTERN",
        ),
    ] = None,
    fallback: Annotated[
        Literal["fp16", "fp32"], option("INT8: precision of the layers that are not in INT8.")
    ] = "fp16",
    ranges: Annotated[
        Path | None,
        option(
            "INT8: file of activation ranges, or a TensorRT calibration cache.",
            metavar="FILE",
            default="ranges.json in the bundle",
        ),
    ] = None,
    method: Annotated[
        Method | None,
        option(
            "INT8: how the range of a value is chosen from its histogram.", default="as calibrated"
        ),
    ] = None,
    percentile: Annotated[
        float | None,
        option(
            "INT8, with --method percentile: percent of the values inside the range.",
            metavar="PERCENT",
            default="as calibrated, or 99.99",
        ),
    ] = None,
    sensitivity: Annotated[
        bool, flag("--sensitivity", "INT8: first measure how much accuracy each block loses.")
    ] = False,
    images: Annotated[
        Path | None,
        option(
            "With --sensitivity: folder or list of pictures to measure on; the calibration "
            "pictures will do.",
            metavar="PATH",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        option(
            "With --sensitivity: accuracy that may be lost, in points (percent). Proposes which "
            "blocks to keep out of INT8.",
            metavar="POINTS",
        ),
    ] = None,
    apply: Annotated[
        bool, flag("--apply", "With --max-drop: keep the proposed blocks out of INT8.")
    ] = False,
) -> None:
    """Make the FP16 or INT8 graph of a bundle and check it.

    The new graph is added to the bundle once it has been compared with the FP32 graph on generated
    pictures. Whatever selects points, labels or boxes stays in FP32.
    """
    from pointrend_deploy.packages import require

    require("quantize")
    from pointrend_deploy.progress import Bars
    from pointrend_deploy.verbs.quantize.options import QuantizeOptions
    from pointrend_deploy.verbs.quantize.quantize import quantize_bundle

    options = QuantizeOptions(
        precision=precision,
        ranges=ranges,
        method=method,
        percentile=percentile,
        fallback=fallback,
        keep_fp32=tuple(keep_fp32 or ()),
        keep_fp16=tuple(keep_fp16 or ()),
        also_int8=tuple(also_int8 or ()),
        sensitivity=sensitivity,
        images=images,
        max_drop=max_drop,
        apply=apply,
    )
    print(quantize_bundle(bundle, options, Bars()).summary())
