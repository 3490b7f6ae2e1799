"""The verbs of precision: calibrate and quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pointrend_deploy.cli.app import BundlePath

Method = Literal["entropy", "percentile", "mse", "max"]


def calibrate(
    bundle: BundlePath,
    images: Annotated[
        Path, typer.Option(help="Folder of pictures, or a list of them with their SHA-256.")
    ],
    method: Annotated[
        Method, typer.Option(help="How a range follows from what was observed.")
    ] = "entropy",
    percentile: Annotated[
        float, typer.Option(help="Percent of the values inside the range, for percentile.")
    ] = 99.99,
    out: Annotated[
        Path | None, typer.Option(help="File of the ranges; ranges.json in the bundle otherwise.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Write the ranges as a TensorRT calibration cache too.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what an interrupted run observed.")
    ] = False,
) -> None:
    """Observe ranges of activations over pictures; exit 1 when a picture could not be read.

    Goes on where it was interrupted.
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
    precision: Annotated[Literal["fp16", "int8"], typer.Option(help="Of the graph to make.")],
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(help="Layers that stay in FP32, by module path: 'backbone.bottom_up.res5*'."),
    ] = None,
    keep_fp16: Annotated[
        list[str] | None, typer.Option(help="int8: layers left out of INT8, by module path.")
    ] = None,
    also_int8: Annotated[
        list[str] | None,
        typer.Option(help="int8: layers put in besides, such as '*point_head*' or '*predictor*'."),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(help="int8: ranges or a TensorRT cache; the bundle's ranges.json otherwise."),
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="int8: another than the ranges were calibrated with.")
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="int8: another than the ranges were calibrated with.")
    ] = None,
    fallback: Annotated[
        Literal["fp16", "fp32"], typer.Option(help="int8: type of all that is not in INT8.")
    ] = "fp16",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="int8: measure what each block costs first.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Pictures to measure on: the calibration pictures.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Points that may be lost; blocks to leave in FP16 are proposed."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Leave the proposed blocks in FP16.")
    ] = False,
) -> None:
    """Make the FP16 graph, or the INT8 one with explicit Q/DQ nodes, and check it."""
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
