"""The choices of an export, and what is refused before any work is done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pointrend_deploy.bundle.folder import (
    DETECTOR,
    GALLERY,
    MARKDOWN,
    MASKS,
    MODEL,
    PARITY,
    REPORT,
    WEIGHTS,
    is_bundle,
    refuse_inside_bundle,
)
from pointrend_deploy.bundle.forms import Layout, Ops, PreprocessPlace
from pointrend_deploy.bundle.manifest import MANIFEST
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.graph.instance.specs import MaskOutput
from pointrend_deploy.graph.options import Output
from pointrend_deploy.pictures.files import list_pictures, read_picture
from pointrend_deploy.recipe.read import AnyRecipe

LARGEST_SIDE = 16384
MADE_AGAIN = {MANIFEST, MODEL, DETECTOR, MASKS, WEIGHTS, PARITY, GALLERY, REPORT, MARKDOWN}
"""Files and folders of a bundle that an export, or a comparison after it, writes anew."""


@dataclass(frozen=True)
class ExportOptions:
    """The user's choices. None stands for the usual choice.

    ``outputs`` is only for semantic models, ``detections``, ``masks`` and ``layout`` only for
    instance models; they stay None for models of another kind.

    Attributes:
        size_hw: height and width in pixels that pictures are fitted inside.
        batch: pictures in one call.
        ops: ``plugin`` keeps the custom nodes with their bodies, ``native`` inlines the bodies.
        outputs: ``labels`` (usual), then ``logits`` and ``stages`` where wanted.
        preprocess: ``outside``, the graph takes normalised float32 pixels; ``in-graph``, uint8.
        include_weights: whether weights.safetensors is part of the bundle.
        detections: largest number of detections in a picture; the recipe's own is usual.
        masks: ``prob`` float32 (usual), ``prob-u8`` uint8, ``logits`` float32.
        layout: ``single`` graph (usual), or ``split`` into a detector and a mask graph.
        weights_key: of the set of weights to take, where the checkpoint has several.
        ignore_extra: leave out tensors of the checkpoint that the model has no place for.
    """

    size_hw: tuple[int, int]
    batch: int = 1
    ops: Ops = "plugin"
    outputs: tuple[Output, ...] | None = None
    preprocess: PreprocessPlace = "outside"
    include_weights: bool = True
    detections: int | None = None
    masks: MaskOutput | None = None
    layout: Layout | None = None
    weights_key: str | None = None
    ignore_extra: bool = False

    def check(self) -> None:
        """Raise UsageError where a choice makes no sense for any recipe."""
        size = f"--size {self.size_hw[0]}x{self.size_hw[1]}"
        if max(self.size_hw) > LARGEST_SIDE:
            raise UsageError(
                f"{size} is too large: a side has at most {LARGEST_SIDE} pixels",
                "pictures of any size are scaled to fit inside: use the size of the training "
                "pictures, such as 1024x2048",
            )
        if min(self.size_hw) < 1:
            raise UsageError(f"{size} is too small", "a side has at least 1 pixel")
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch} is out of range", "use 1 or more")

    def padded_hw(self, recipe: AnyRecipe) -> tuple[int, int]:
        """Round height and width up to multiples of the recipe's ``size_divisibility``."""
        height, width = self.size_hw
        divisor = recipe.input.size_divisibility
        return height + -height % divisor, width + -width % divisor


def refuse_to_overwrite(out: Path, force: bool) -> None:
    """Refuse to replace a folder that is no bundle, or one with files that no export writes.

    Args:
        out: folder of the bundle to be.
        force: replace also a bundle with further files.

    Raises:
        DeployError: naming the first such files; or ``out`` lies in another bundle.
    """
    refuse_inside_bundle(out)
    if not out.exists():
        return
    held = {entry.name for entry in out.iterdir()} if out.is_dir() else {out.name}
    held = {name for name in held if ".partial-" not in name}
    if not out.is_dir() or (held and not is_bundle(out)):
        raise DeployError(f"{out} exists and is not a bundle", "choose another --out")
    if (extra := sorted(held - MADE_AGAIN)) and not force:
        raise DeployError(
            f"the bundle {out} also holds {', '.join(extra[:5])}, which an export would remove",
            "choose another --out, or give --force to replace everything in it",
        )


def refuse_to_fail_late(out: Path, batch: int, verify_on: str | Path | None) -> None:
    """Check now what would otherwise end the export after minutes of tracing.

    Args:
        out: folder of the bundle to be.
        batch: pictures that are verified.
        verify_on: a picture or a folder of pictures; None for generated ones.

    Raises:
        DeployError: ``out`` cannot be written, or a picture cannot be read.
    """
    parent = out.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise DeployError(f"cannot write into {parent}", "choose another --out")
    if verify_on is not None:
        for path in list_pictures(verify_on)[:batch]:
            read_picture(path)
