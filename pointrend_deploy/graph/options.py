"""Options of a semantic export, and the limits that every graph has."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from pointrend_deploy.bundle.forms import Ops, PreprocessPlace
from pointrend_deploy.errors import DeployError

Output = Literal["labels", "logits", "stages"]

TOPK_LIMIT: Final = 3840
"""Largest k of TopK in TensorRT (its headers; RTX 1.7 refuses more when it builds)."""

MAX_LEVELS: Final = 4
"""Largest number of feature maps that PointRendRoIAlign takes."""


class GraphOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a semantic export; all else is in the recipe.

    Attributes:
        padded_hw: (Hp, Wp), the network grid; multiples of the recipe's ``size_divisibility``.
        batch: pictures a call, N; fixed.
        ops: ``plugin`` keeps the nodes of domain ``pointrend`` with their function bodies,
            ``native`` inlines the bodies.
        outputs: any of ``labels`` (N, Hp, Wp) uint8, ``logits`` (N, C, Hp, Wp) float32 and
            ``stages``, every intermediate of ``SemanticModel.canvas_stages`` under its own name.
        preprocess: ``outside`` takes ``image`` (N, 3, Hp, Wp) float32, normalised, then padded;
            ``in-graph`` takes ``image`` (N, Hp, Wp, 3) uint8 and ``extent`` (N, 2) int64, the
            (height, width) of the picture in the top left corner.
        opset: 18 or 19. Opset 20 renames GridSample's mode to a word NVIDIA's parser does not
            know, and samples the nearest cell without a warning.
    """

    padded_hw: tuple[int, int]
    batch: int = 1
    ops: Ops = "plugin"
    outputs: tuple[Output, ...] = ("labels",)
    preprocess: PreprocessPlace = "outside"
    opset: int = 18

    def check(self, size_divisibility: int) -> None:
        """Refuse options for which no graph can be made.

        Raises:
            DeployError: naming the option and values that would do.
        """
        check_graph(
            self.padded_hw, self.batch, self.ops, self.preprocess, self.opset, size_divisibility
        )
        known = {"labels", "logits", "stages"}
        if not self.outputs or not set(self.outputs) <= known:
            raise DeployError(
                f"outputs {list(self.outputs)} are not of labels, logits, stages",
                "ask for at least one of them",
            )


def check_graph(
    padded_hw: tuple[int, int],
    batch: int,
    ops: str,
    preprocess: str,
    opset: int,
    size_divisibility: int,
) -> None:
    """Refuse sizes and options that no graph, semantic or instance, can have.

    Raises:
        DeployError: naming the option and values that would do.
    """
    if opset not in (18, 19):
        raise DeployError(
            f"opset {opset} is not 18 or 19",
            "at opset 20 TensorRT silently samples the nearest cell; use 18",
        )
    if batch < 1:
        raise DeployError(f"batch must be at least 1, not {batch}")
    if min(padded_hw) < 1 or any(side % size_divisibility for side in padded_hw):
        raise DeployError(
            f"the network grid {padded_hw[0]}x{padded_hw[1]} is not a multiple of "
            f"{size_divisibility}",
            f"pad both sides to a multiple of {size_divisibility}",
        )
    if ops not in ("plugin", "native"):
        raise DeployError(f"ops is plugin or native, not {ops}")
    if preprocess not in ("outside", "in-graph"):
        raise DeployError(f"preprocess is outside or in-graph, not {preprocess}")
