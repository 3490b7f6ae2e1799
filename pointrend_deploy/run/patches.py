"""Masks as patches, eight pixels a byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from pointrend_deploy.run.paste import Patch


class PackedPatches(Sequence[Patch]):
    """Patches as any sequence gives them, unpacked anew each time one is asked for.

    A hundred things as large as a picture of 24 megapixels then take 0.3 GB and not 2.3.

    Args:
        patches: taken one by one; none of them is kept.
    """

    def __init__(self, patches: Iterable[Patch]) -> None:
        self._packed = [
            (top, left, covered.shape, np.packbits(covered)) for top, left, covered in patches
        ]

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> Patch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Patch]: ...
    def __getitem__(self, index: int | slice) -> Patch | list[Patch]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        top, left, shape, bits = self._packed[index]
        count = int(np.prod(shape))
        return top, left, np.unpackbits(bits, count=count).view(np.bool_).reshape(shape)
