"""The graphs that `quantize` made, with what to tell the user about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pointrend_deploy.bundle.records import QuantizedRecord

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class QuantizedGraphs:
    """FP16 or INT8 graphs and what to tell the user about them.

    Attributes:
        graphs: the graphs, by the file name of the FP32 graph each was made from.
        record: their entry in the manifest.
        notes: warnings.
        more: further lines for the terminal.
        leave_out: names of the layers that ``--apply`` left out of INT8.
    """

    graphs: dict[str, ModelProto]
    record: QuantizedRecord
    notes: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    leave_out: frozenset[str] = frozenset()
