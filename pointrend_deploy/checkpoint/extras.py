"""Tensors that the model has no place for: which of them a user may leave out.

A part that the model does not have, such as a loss or another head, changes none of its answers. A
further layer inside a part that it has does: that means the recipe describes another model.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_CHAINS = (
    "proposal_generator.rpn_head.",
    "roi_heads.box_head.",
    "roi_heads.box_predictor.",
    "roi_heads.mask_head.",
    "sem_seg_head.point_head.",
)
"""Parts in which every layer takes part in the answer."""


def in_the_way(extra: Collection[str], expected: Collection[str]) -> list[str]:
    """Choose those extra tensors that belong to a part of the model.

    They stand at one of its layers (a norm after a convolution), go on counting its layers (a
    fifth convolution after four), or stand in a chain of layers that it has.

    Args:
        extra: names that the model does not have.
        expected: names that it has.
    """
    layers = {name.rsplit(".", 1)[0] for name in expected}
    counted = {_uncounted(name) for name in expected}
    blocks = {".".join(name.split(".")[:4]) + "." for name in expected if _in_block(name)}
    chains = [chain for chain in _CHAINS if any(name.startswith(chain) for name in expected)]
    inside = (*chains, *blocks, *(f"{layer}." for layer in layers))
    return [name for name in extra if name.startswith(inside) or _uncounted(name) in counted]


def _uncounted(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _in_block(name: str) -> bool:
    """Whether a name is of a block of the backbone, such as ``backbone.bottom_up.res2.0.``."""
    return re.match(r"backbone\.bottom_up\.\w+\.\d+\.", name) is not None
