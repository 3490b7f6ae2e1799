"""The command line: one verb per stage. Nothing heavy is imported before a verb needs it.

Data goes to stdout; progress, notes, ``error:`` and ``hint:`` go to stderr. Exit codes: 0 done,
1 error (also when a folder run skipped a picture), 2 usage, 3 a parity gate failed.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pointrend_deploy.cli.app import (
    BundlePath,
    EngineName,
    Precision,
    WeightsFile,
    app,
    parse_outputs,
    parse_size,
    say,
)
from pointrend_deploy.cli.compare import compare, report
from pointrend_deploy.cli.precision import calibrate, quantize
from pointrend_deploy.errors import DeployError
from pointrend_deploy.version import __version__


@app.command()
def export(
    recipe: Annotated[Path, typer.Argument(help="A recipe of export/, or your own TOML.")],
    weights: Annotated[Path, typer.Option(help="Checkpoint: .pkl, .pth or .safetensors.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    size: Annotated[str, typer.Option(help="HxW that pictures are fitted inside: 1024x2048.")],
    batch: Annotated[int, typer.Option(min=1, help="Pictures in one call.")] = 1,
    ops: Annotated[
        Literal["plugin", "native"],
        typer.Option(help="plugin: custom nodes with ONNX bodies; native: standard nodes only."),
    ] = "plugin",
    outputs: Annotated[
        str | None, typer.Option(help="Semantic: labels (usual), with logits, stages after commas.")
    ] = None,
    detections: Annotated[
        int | None, typer.Option(help="Instances: most a picture; the recipe's own otherwise.")
    ] = None,
    masks: Annotated[
        Literal["prob", "prob-u8", "logits"] | None,
        typer.Option(help="Instances: float32 probabilities (usual), uint8, or logits."),
    ] = None,
    layout: Annotated[
        Literal["single", "split"] | None,
        typer.Option(help="Instances: one graph (usual), or detector and masks apart."),
    ] = None,
    preprocess: Annotated[
        Literal["outside", "in-graph"],
        typer.Option(help="Where pixels are normalised; in-graph takes uint8."),
    ] = "outside",
    no_weights: Annotated[
        bool, typer.Option("--no-weights", help="Leave weights.safetensors out of the bundle.")
    ] = False,
    verify_images: Annotated[
        Path | None, typer.Option(help="Picture or folder to verify on; generated ones otherwise.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that holds more than an export.")
    ] = False,
) -> None:
    """Trace a checkpoint into a bundle and verify it against PyTorch."""
    from pointrend_deploy.progress import Bars
    from pointrend_deploy.verbs.export.export import export_bundle
    from pointrend_deploy.verbs.export.options import ExportOptions

    options = ExportOptions(
        size_hw=parse_size(size),
        batch=batch,
        ops=ops,
        outputs=None if outputs is None else parse_outputs(outputs),
        preprocess=preprocess,
        include_weights=not no_weights,
        detections=detections,
        masks=masks,
        layout=layout,
    )
    result = export_bundle(
        recipe, weights, out, options, verify_on=verify_images, force=force, progress=Bars()
    )
    print(result.summary())


@app.command()
def run(
    bundle: BundlePath,
    images: Annotated[Path, typer.Argument(help="A picture or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Folder for label maps or detections, and overlays.")],
    runner: Annotated[
        Literal["auto", "onnx", "torch", "tensorrt"], typer.Option(help="What runs the model.")
    ] = "auto",
    engine: EngineName = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Which of the bundle's graphs or engines (fp32).")
    ] = None,
    weights: WeightsFile = None,
    draw_above: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Instances: score from which a thing is drawn (0.5)."),
    ] = None,
) -> None:
    """Write label maps or COCO detections, and overlays, for pictures of any size."""
    from pointrend_deploy.verbs.run import run_bundle, summary

    result = run_bundle(
        bundle,
        images,
        out,
        runner=runner,
        weights=weights,
        draw_above=draw_above,
        engine=engine,
        precision=precision,
    )
    print(summary(result, out))
    if result.skipped:
        raise typer.Exit(1)


app.command()(compare)
app.command()(report)
app.command()(calibrate)
app.command()(quantize)


@app.command()
def build(
    bundle: BundlePath,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(help="Which of the bundle's graphs.")
    ] = "fp32",
    ops: Annotated[
        Literal["plugin", "native"] | None,
        typer.Option(help="Custom nodes by plugins, or by standard layers; as exported otherwise."),
    ] = None,
    target: Annotated[
        str, typer.Option(help="this, or rtx:86,89,120 (TensorRT-RTX, no GPU needed).")
    ] = "this",
    workspace_mib: Annotated[
        int, typer.Option(min=1, help="Most scratch memory of a layer.")
    ] = 1024,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only print the trtexec command line.")
    ] = False,
) -> None:
    """Build TensorRT engines of a bundle, each checked layer by layer."""
    from pointrend_deploy.progress import Bars
    from pointrend_deploy.verbs.build import BuildOptions, build_bundle
    from pointrend_deploy.verbs.build import explain as explained

    options = BuildOptions(precision, ops, target, workspace_mib)
    if explain:
        print(explained(bundle, options))
    else:
        print(build_bundle(bundle, options, Bars()).summary())


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Say what this machine has, and what that allows."""
    from pointrend_deploy.verbs.doctor import examine

    findings = examine()
    print(findings.to_json() if json else findings.summary())


def _version(asked: bool) -> None:
    if asked:
        print(f"pointrend-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


class Interrupted(BaseException):
    """SIGINT or SIGTERM; whatever is being written is removed on the way out."""


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


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
