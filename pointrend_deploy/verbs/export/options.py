"""What an export is asked for, and what is refused before any work is done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

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
)
from pointrend_deploy.bundle.manifest import MANIFEST
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.pictures.files import list_pictures, read_picture
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.read import AnyRecipe

Output = Literal["labels", "logits", "stages"]
Masks = Literal["prob", "prob-u8", "logits"]
Layout = Literal["single", "split"]
OUTPUTS = get_args(Output)
LARGEST_SIDE = 16384
MADE_AGAIN = {MANIFEST, MODEL, DETECTOR, MASKS, WEIGHTS, PARITY, GALLERY, REPORT, MARKDOWN}


@dataclass(frozen=True)
class ExportOptions:
    """What the user chose. None stands for what is usual, and must stay where it has no meaning.

    Attributes:
        size_hw: pictures are fitted inside this height and width.
        batch: pictures in one call.
        ops: ``plugin`` keeps the custom nodes with their bodies, ``native`` inlines the bodies.
        outputs: of a semantic model: ``labels``, then ``logits`` and ``stages`` where wanted.
        preprocess: whether the graph takes normalised float32 or uint8 pixels.
        include_weights: whether the bundle holds weights.safetensors.
        detections: of an instance model: most detections a picture; the recipe's own when None.
        masks: of an instance model: ``prob`` float32 (usual), ``prob-u8`` uint8, ``logits``.
        layout: of an instance model: ``single`` graph (usual), or ``split`` into a detector and a
            mask graph.
    """

    size_hw: tuple[int, int]
    batch: int = 1
    ops: Literal["plugin", "native"] = "plugin"
    outputs: tuple[Output, ...] | None = None
    preprocess: Literal["outside", "in-graph"] = "outside"
    include_weights: bool = True
    detections: int | None = None
    masks: Masks | None = None
    layout: Layout | None = None

    def check(self, recipe: AnyRecipe) -> None:
        """Raise UsageError where a choice makes no sense, or none for this recipe."""
        if not all(1 <= side <= LARGEST_SIDE for side in self.size_hw):
            raise UsageError(
                f"--size {self.size_hw[0]}x{self.size_hw[1]} is out of range",
                f"each side is 1 to {LARGEST_SIDE} pixels",
            )
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch} is out of range", "use 1 or more")
        if isinstance(recipe, InstanceRecipe):
            self._check_instance(recipe)
        else:
            self._check_semantic(recipe.name)

    def _check_semantic(self, name: str) -> None:
        for option in ("detections", "masks", "layout"):
            if getattr(self, option) is not None:
                raise UsageError(
                    f"--{option} is of instance models, and {name} is a semantic recipe",
                    f"leave --{option} out",
                )
        outputs = ("labels",) if self.outputs is None else self.outputs
        unknown = [output for output in outputs if output not in OUTPUTS]
        if unknown or "labels" not in outputs or len(set(outputs)) < len(outputs):
            raise UsageError(
                f"--outputs {','.join(outputs)} cannot be exported",
                "use labels, optionally followed by logits and stages: labels,logits",
            )

    def _check_instance(self, recipe: InstanceRecipe) -> None:
        if self.outputs is not None:
            raise UsageError(
                f"--outputs is of semantic models, and {recipe.name} is an instance recipe",
                "leave --outputs out; --masks says what the masks are",
            )
        for option, known in (("masks", get_args(Masks)), ("layout", get_args(Layout))):
            value = getattr(self, option)
            if value is not None and value not in known:
                raise UsageError(
                    f"--{option} {value} cannot be exported", f"use {', '.join(known)}"
                )
        smallest = min(min(sizes) for sizes in recipe.rpn.anchor_sizes)
        if min(self.size_hw) < smallest:
            raise UsageError(
                f"--size {self.size_hw[0]}x{self.size_hw[1]} is smaller than one anchor: the "
                f"smallest of {recipe.name} has sides of {smallest:g} pixels",
                f"pictures are fitted inside --size: use {smallest:g}x{smallest:g} or more",
            )
        most = recipe.rpn.post_nms_topk
        if self.detections is not None and not 1 <= self.detections <= most:
            raise UsageError(
                f"--detections {self.detections} is out of range",
                f"{recipe.name} makes detections from at most {most} proposals: use 1 to {most}",
            )


def padded_size(size_hw: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Height and width rounded up to multiples of ``divisor``."""
    height, width = size_hw
    return height + -height % divisor, width + -width % divisor


def refuse_to_overwrite(out: Path, force: bool) -> None:
    """Refuse to replace what is no bundle, or, without ``force``, more than an export makes."""
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
    """Find out now what would otherwise end the export after minutes of tracing."""
    parent = out.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise DeployError(f"cannot write into {parent}", "choose another --out")
    if verify_on is not None:
        for path in list_pictures(verify_on)[:batch]:
            read_picture(path)
