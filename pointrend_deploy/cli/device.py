"""The verbs of the device: build, run and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointrend_deploy.bundle.forms import Ops, Precision, RunnerName
from pointrend_deploy.cli.app import BundlePath, EngineName, WeightsFile, flag, option


def build(
    bundle: BundlePath,
    precision: Annotated[Precision, option("Precision of the graph to build from.")] = "fp32",
    ops: Annotated[
        Ops | None,
        option(
            "plugin: run PointRend's own operators with the plugin library; native: with standard "
            "TensorRT layers.",
            default="as exported",
        ),
    ] = None,
    target: Annotated[
        str,
        option(
            "GPU to build for. this: the GPU of this machine; rtx:86,89,120: TensorRT-RTX engines "
            "for these compute capabilities, built without a GPU.",
            metavar="TARGET",
        ),
    ] = "this",
    workspace_mib: Annotated[
        int, option("Most scratch memory of a layer, in MiB.", metavar="MIB", min=1)
    ] = 1024,
    verify_images: Annotated[
        Path | None,
        option(
            "With --target this: picture, or folder of pictures, that the engine runs on before it "
            "is recorded.",
            metavar="PATH",
            default="generated pictures",
        ),
    ] = None,
    explain: Annotated[
        bool, flag("--explain", "Only print the trtexec command that builds the same engine.")
    ] = False,
) -> None:
    """Build TensorRT engines and check their layers.

    Engines are written to BUNDLE/engines, once every layer has been found to compute in the
    precision of the graph. An engine for this machine's GPU runs first, and is compared with its
    graph in ONNX Runtime: exit code 3 means that they differ.
    """
    from pointrend_deploy.engine.machine import check_packages
    from pointrend_deploy.packages import require

    if explain:
        require("build --explain")
    else:
        check_packages(target)
    from pointrend_deploy.progress import Bars
    from pointrend_deploy.verbs.build import BuildOptions, build_bundle
    from pointrend_deploy.verbs.build import explain as explained

    options = BuildOptions(precision, ops, target, workspace_mib, verify_images)
    if explain:
        print(explained(bundle, options))
    else:
        print(build_bundle(bundle, options, Bars()).summary())


def run(
    bundle: BundlePath,
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, folders of pictures, and patterns such as 'scenes/*/left.png'."
        ),
    ],
    out: Annotated[
        Path, option("Folder to write label maps or detections, and overlays to.", metavar="FOLDER")
    ],
    runner: Annotated[
        RunnerName,
        option(
            "Library that runs the model. auto: TensorRT if an engine of the bundle fits this "
            "machine, else ONNX Runtime if it is installed, PyTorch otherwise."
        ),
    ] = "auto",
    engine: EngineName = None,
    precision: Annotated[
        Precision | None,
        option(
            "Precision of the graph or engine to run.",
            default="fp32; of an engine its own",
        ),
    ] = None,
    weights: WeightsFile = None,
    draw_above: Annotated[
        float | None,
        typer.Option(
            "--draw-above",
            "--conf",
            help="Instance models: least score of the detections drawn in overlays.",
            metavar="SCORE",
            show_default="0.5",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    recursive: Annotated[
        bool, flag("--recursive", "Run the pictures in sub-folders as well.")
    ] = False,
) -> None:
    """Run a bundle on pictures of any size.

    Semantic models write label maps, instance models COCO detections; both write overlays. Results
    of pictures from several folders keep the names of these folders. Exit code 1 means that a
    picture could not be read; the others are done.
    """
    from pointrend_deploy.verbs.run import RunOptions, run_bundle, summary

    options = RunOptions(runner, weights, engine, precision, draw_above, recursive)
    result = run_bundle(bundle, images, out, options)
    print(summary(result, out))
    if result.skipped:
        raise typer.Exit(1)


def doctor(
    json: Annotated[bool, flag("--json", "Print the findings as JSON.")] = False,
) -> None:
    """List what this machine has and which verbs can run."""
    from pointrend_deploy.verbs.doctor import examine

    findings = examine()
    print(findings.to_json() if json else findings.summary())
