"""Weights as the repository stores them: compressed, and as differences from another model's.

The two semantic models were trained from the same published backbone, so the bits of their tensors
lie near one another: a difference takes fewer bytes than a tensor. Nothing is lost.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from typing import Final

import torch
from safetensors.torch import load, save
from torch import Tensor

_FILTERS: Final = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 1, "pb": 1}
]
"""Values are of two bytes, of which the second has the exponent: each is predicted by itself."""


def packed(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> bytes:
    """Pack float16 tensors into xz-compressed safetensors.

    Args:
        tensors: by name.
        base: those whose bits are subtracted from tensors of the same name and shape, which are
            stored as int16, modulo 2**16.
    """
    differences = {
        name: bits_of(value) - bits_of(base[name]) if _alike(value, base.get(name)) else value
        for name, value in tensors.items()
    }
    return lzma.compress(save(differences), format=lzma.FORMAT_XZ, filters=_FILTERS)


def unpacked(data: bytes, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the float16 tensors that :func:`packed` packed with the same base.

    Raises:
        ValueError: the data are damaged.
        KeyError: the base is another one.
    """
    try:
        stored = load(lzma.decompress(data))
    except lzma.LZMAError as error:
        raise ValueError(f"packed weights are damaged: {error}") from error
    return {
        name: (value + bits_of(base[name])).view(torch.float16)
        if value.dtype == torch.int16
        else value
        for name, value in stored.items()
    }


def bits_of(value: Tensor) -> Tensor:
    """The bits of float16 numbers as int16."""
    return value.contiguous().view(torch.int16)


def _alike(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and other.shape == value.shape
