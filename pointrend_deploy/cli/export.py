"""The `export` verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointrend_deploy.bundle.forms import Layout, MaskForm, Ops, PreprocessPlace
from pointrend_deploy.cli.app import flag, option, parse_outputs, parse_size


def export(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="Recipe of the model: a name that `recipes` lists, or a TOML file of your own."
        ),
    ],
    weights: Annotated[
        Path, option("Checkpoint file: .pkl, .pth or .safetensors.", metavar="FILE")
    ],
    out: Annotated[Path, option("Folder to write the bundle to.", metavar="FOLDER")],
    size: Annotated[
        str,
        option(
            "Input size of the network in pixels, HEIGHTxWIDTH, such as 1024x2048. Pictures of "
            "any size are scaled to fit inside.",
            metavar="HEIGHTxWIDTH",
        ),
    ],
    batch: Annotated[int, option("Pictures per call of the network.", metavar="N", min=1)] = 1,
    ops: Annotated[
        Ops,
        option(
            "plugin: PointRend's own ONNX operators, which TensorRT plugins speed up; native: "
            "standard ONNX operators only."
        ),
    ] = "plugin",
    preprocess: Annotated[
        PreprocessPlace,
        option(
            "Where pixels are normalised. outside: the graph takes normalised float32; in-graph: "
            "the graph takes uint8 pixels."
        ),
    ] = "outside",
    no_weights: Annotated[bool, flag("--no-weights", "Leave weights.safetensors out.")] = False,
    verify_images: Annotated[
        Path | None,
        option(
            "Picture, or folder of pictures, to verify the bundle on.",
            metavar="PATH",
            default="generated pictures",
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        option(
            "Semantic models: outputs of the graph, separated by commas: labels, and optionally "
            "logits and stages.",
            metavar="NAMES",
            default="labels",
        ),
    ] = None,
    detections: Annotated[
        int | None,
        option(
            "Instance models: most detections per picture.", metavar="N", default="as in the recipe"
        ),
    ] = None,
    masks: Annotated[
        MaskForm | None,
        option(
            "Instance models: type of the mask output. prob: probabilities as float32; prob-u8: "
            "probabilities as uint8; logits: logits as float32.",
            default="prob",
        ),
    ] = None,
    layout: Annotated[
        Layout | None,
        option(
            "Instance models: a single graph, or split into a detector graph and a mask graph.",
            default="single",
        ),
    ] = None,
    weights_key: Annotated[
        str | None,
        option(
            "Key of the weights in the checkpoint, where it holds several sets, such as ema.",
            metavar="KEY",
            default="model or state_dict, or the only set",
        ),
    ] = None,
    ignore_extra: Annotated[
        bool,
        flag(
            "--ignore-extra",
            "Leave out tensors of the checkpoint that the model has no place for, such as those "
            "of a loss. They are counted and named.",
        ),
    ] = False,
    force: Annotated[
        bool,
        flag(
            "--force",
            "Replace an existing bundle even if it contains more than an export, such as engines.",
        ),
    ] = False,
) -> None:
    """Export a checkpoint to a bundle and verify it.

    The bundle's ONNX graph is compared with the PyTorch model stage by stage. Exit code 3 means
    that the two differ by more than the tolerances.
    """
    from pointrend_deploy.packages import require

    size_hw = parse_size(size)
    require("export")
    from pointrend_deploy.progress import Bars
    from pointrend_deploy.verbs.export.export import export_bundle
    from pointrend_deploy.verbs.export.options import ExportOptions

    options = ExportOptions(
        size_hw=size_hw,
        batch=batch,
        ops=ops,
        outputs=None if outputs is None else parse_outputs(outputs),
        preprocess=preprocess,
        include_weights=not no_weights,
        detections=detections,
        masks=masks,
        layout=layout,
        weights_key=weights_key,
        ignore_extra=ignore_extra,
    )
    result = export_bundle(
        recipe, weights, out, options, verify_on=verify_images, force=force, progress=Bars()
    )
    print(result.summary())
