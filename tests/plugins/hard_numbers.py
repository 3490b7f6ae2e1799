"""Numbers that are hard to order: ties, signed zeros, neighbours, infinities and NaN."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hard_to_order(
    shape: tuple[int, ...],
    generator: torch.Generator,
    *,
    few: tuple[int, int],
    equal: float,
    largest: float,
) -> dict[str, Tensor]:
    """Make float32 tensors of one shape, one of each kind.

    Args:
        shape: of each tensor.
        generator: of the random ones.
        few: range of integers, the upper end left out, of the kind "few values".
        equal: the value of the kind "all equal".
        largest: the finite value of either sign among the special ones.
    """
    inf, nan = math.inf, math.nan
    normal = torch.randn(shape, generator=generator)
    few_values = torch.randint(*few, shape, generator=generator).float()
    special = torch.tensor([nan, -nan, inf, -inf, 0.0, -0.0, largest, -largest, 1e-45, 1.0])
    return {
        "random": normal,
        "few values": few_values,
        "all equal": torch.full(shape, equal),
        "signed zeros": torch.where(normal > 0, 0.0, -0.0),
        "one bit apart": torch.tensor([1.0, 1.0000001])[(normal > 0).long()],
        "special": special[torch.randint(0, 10, shape, generator=generator)],
        "all NaN": torch.full(shape, nan),
        "all -inf but NaN": torch.where(normal > 0, -inf, nan),
    }
