"""What an export is asked for, and what is refused before any work is done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pointrend_deploy.bundle import GALLERY, MARKDOWN, MODEL, PARITY, REPORT, WEIGHTS, is_bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.manifest import MANIFEST
from pointrend_deploy.run.source import list_pictures, read_picture

Output = Literal["labels", "logits", "stages"]
OUTPUTS = get_args(Output)
LARGEST_SIDE = 16384
MADE_AGAIN = {MANIFEST, MODEL, WEIGHTS, PARITY, GALLERY, REPORT, MARKDOWN}


@dataclass(frozen=True)
class ExportOptions:
    """What the user chose.

    Attributes:
        size_hw: pictures are fitted inside this height and width.
        batch: pictures in one call.
        ops: ``plugin`` keeps the custom nodes with their bodies, ``native`` inlines the bodies.
        outputs: ``labels``, then ``logits`` and ``stages`` where wanted.
        preprocess: whether the graph takes normalised float32 or uint8 pixels.
        include_weights: whether the bundle holds weights.safetensors.
    """

    size_hw: tuple[int, int]
    batch: int = 1
    ops: Literal["plugin", "native"] = "plugin"
    outputs: tuple[Output, ...] = ("labels",)
    preprocess: Literal["outside", "in-graph"] = "outside"
    include_weights: bool = True

    def check(self) -> None:
        """Raise UsageError where a choice makes no sense."""
        if not all(1 <= side <= LARGEST_SIDE for side in self.size_hw):
            raise UsageError(
                f"--size {self.size_hw[0]}x{self.size_hw[1]} is out of range",
                f"each side is 1 to {LARGEST_SIDE} pixels",
            )
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch} is out of range", "use 1 or more")
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or "labels" not in self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise UsageError(
                f"--outputs {','.join(self.outputs)} cannot be exported",
                "use labels, optionally followed by logits and stages: labels,logits",
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
